/* A patch from two images. */
#include "decoder/core.h"
#include <stdlib.h>

/* A checksum of an image, piece by piece, so that a mapped one need not stay in memory. */
static int checksum(const sd_wish *wish, const u8 *p, u32 n, u32 *crc)
{
    for (u32 at = 0, piece; at < n; at += piece) {
        piece = n - at < 8u << 20 ? n - at : 8u << 20;
        *crc = sd_crc32(*crc, p + at, piece);
        if (wish->progress && wish->progress(wish->user, 0, n))
            return SD_CANCELLED;
    }
    return SD_OK;
}

/* How much of the base the literal model is taught: time on both sides, so as much as new bytes can repay. */
static u32 worth_priming(const sd_match *m, u32 n, u32 on, u32 nn)
{
    u64 extra = nn, most = on < SD_MOST_PRIME ? on : SD_MOST_PRIME;
    while (n--)
        extra -= m++->len;
    extra = (extra * 64 + 65535) & ~(u64)65535; /* told in units of 64 KiB */
    return (u32)(extra < most ? extra : most);
}

/* Whether most of an image is as it was: then most of it is told by runs, in half the time on both sides. What small
 * machines run is small, and bytes are dearer there (a twentieth more). */
static int hardly_changed(const sd_match *m, u32 n, const u8 *base, const u8 *target, u32 nn)
{
    u64 changed = nn;
    for (u32 k = 0; k < n; k++)
        for (u32 q = 0; q < m[k].len; q++)
            changed -= base[m[k].from + q] == target[m[k].at + q];
    return changed * 16 < nn;
}

static int small_machine(int arch) { return arch == SD_THUMB || arch == SD_MIXED || arch == SD_XTENSA || arch == SD_RISCV; }

/* Where an image is loaded: as the caller knows, else by its bytes. */
static void segments(const sd_wish *wish, int which, int arch, const u8 *p, u32 size, sd_segment *s, u32 *n)
{
    u32 told = wish->segment_count[which];
    if (!told || told > SD_MAX_SEGMENTS) {
        sd_segments(arch, p, size, s, n);
        return;
    }
    *n = told;
    for (u32 k = 0; k < told; k++) {
        s[k] = wish->segments[which][k];
        s[k].off = s[k].off < size ? s[k].off : size;
        s[k].len = s[k].len < size - s[k].off ? s[k].len : size - s[k].off;
    }
}

/* How far a segment moved is told in 32 bits; what seems to have moved further was not found. */
static void within_reach(sd_walk *w)
{
    for (u32 k = 0; k < w->old_segs && k < w->new_segs; k++) {
        i64 moved = (i64)(w->new_seg[k].va - w->old_seg[k].va);
        if (moved != (i32)moved)
            w->new_seg[k].va = w->old_seg[k].va;
    }
}

static int make_by(const u8 *base, uint64_t base_size, const u8 *target, uint64_t target_size, const sd_wish *wish,
                   int names, sd_made *made)
{
    memset(made, 0, sizeof *made);
    if (base_size > 0x7FFFFFFF || target_size > 0x7FFFFFFF)
        return SD_SIZE;
    sd_walk *w = calloc(1, sizeof *w);
    u8 *memory = 0, head[SD_HEADER_MAX];
    sd_match *script = 0;
    int bad = SD_MEMORY;
    if (!w)
        return bad;
    u32 on = (u32)base_size, nn = (u32)target_size, count = 0, kept = 0;
    int arch = wish->arch;
    if (arch < 0) {
        arch = sd_detect(base, on);
        if (arch != sd_detect(target, nn))
            arch = SD_PLAIN;
    }
    w->h.profile = wish->profile;
    w->h.arch = (u8)arch;
    w->h.blocks = wish->profile != SD_LINUX_16M || nn > 4u << 20;
    w->h.base_size = on;
    w->h.target_size = nn;
    segments(wish, 0, arch, base, on, w->old_seg, &w->old_segs);
    segments(wish, 1, arch, target, nn, w->new_seg, &w->new_segs);
    within_reach(w);
    if ((bad = checksum(wish, base, on, &w->h.base_crc)) || (bad = checksum(wish, target, nn, &w->h.target_crc)))
        goto done;
    memcpy(w->h.base_sha256, wish->base_sha256, SD_DIGEST);
    memcpy(w->h.target_sha256, wish->target_sha256, SD_DIGEST);
    /* where a match takes 14 bytes of a small memory every one is weighed; in large images, small ones only tear programs */
    int least = wish->profile != SD_LINUX_16M || small_machine(arch) ? 1 : 32;
    bad = sd_matches(arch, base, on, w->old_seg, w->old_segs, target, nn, w->new_seg, w->new_segs,
                     sd_most_matches(&w->h), names ? least : 0, &script, &count, &kept, wish);
    if (bad)
        goto done;
    w->h.matches = kept;
    if (!w->h.blocks && !small_machine(arch) && nn > 1u << 16) /* what is small takes no time anyway */
        w->h.blocks = hardly_changed(script, count, base, target, nn);
    if (wish->profile == SD_LINUX_16M)
        w->h.prime = worth_priming(script, count, on, nn);
    w->h.memory = sd_memory_needed(&w->h);
    memory = malloc(w->h.memory);
    bad = SD_MEMORY;
    if (!memory)
        goto done;
    w->base = base;
    w->target = target;
    w->made = made;
    w->progress = wish->progress;
    w->user = wish->user;
    bad = sd_layout(w, memory, w->h.memory);
    if (bad)
        goto done;
    sd_coder_start_encode(&w->c);
    bad = sd_run(w, script);
    if (bad)
        goto done;
    sd_coder_finish(&w->c);
    w->h.body = (u32)w->c.length;
    u32 n = (u32)sd_header_write(&w->h, head);
    made->patch = malloc(n + w->c.length);
    made->matches = count;
    made->length = n + w->c.length;
    bad = made->patch ? w->c.failed : SD_MEMORY;
    if (!bad) {
        memcpy(made->patch, head, n);
        memcpy(made->patch + n, w->c.out, w->c.length);
    }
done:
    free(memory);
    free(script);
    free(w->c.out);
    free(w);
    return bad;
}
static void the_smaller(sd_made *made, sd_made *other)
{
    if (other->patch && other->length < made->length) {
        sd_made larger = *made;
        *made = *other;
        *other = larger;
    }
    sd_free(other);
}
/* Where pointers are told apart by what they point at, tables match entry by entry; where most of that changed too, they
 * had better all look alike. Firmware for small machines is made both ways, and the smaller patch is taken. */
static int make_both(const u8 *base, uint64_t base_size, const u8 *target, uint64_t target_size, const sd_wish *wish,
                     int *small, sd_made *made)
{
    sd_made other;
    int bad = make_by(base, base_size, target, target_size, wish, 1, made);
    *small = !bad && target_size <= 4u << 20 && (wish->profile != SD_LINUX_16M || small_machine(made->patch[4] & 15));
    if (!*small)
        return bad;
    bad = make_by(base, base_size, target, target_size, wish, 0, &other);
    the_smaller(made, &other);
    return bad;
}
/* Whether hardly one field that was predicted to change did so: then it is another machine's, or stands elsewhere. */
static int mistaken(const sd_made *made) { return made->fields_right * 8 < made->fields_moved; }

/* Where it is found of both images where they are loaded, and not the same, either may be wrong, or both: then it is
 * also made as if they were loaded alike, or nobody knew. */
int sd_make(const u8 *base, uint64_t base_size, const u8 *target, uint64_t target_size, const sd_wish *wish, sd_made *made)
{
    int small, bad = make_both(base, base_size, target, target_size, wish, &small, made);
    sd_segment s[2][SD_MAX_SEGMENTS];
    u32 n[2] = {0, 0};
    if (small && !bad && !wish->segment_count[0] && !wish->segment_count[1]) {
        sd_segments(made->patch[4] & 15, base, (u32)base_size, s[0], n);
        sd_segments(made->patch[4] & 15, target, (u32)target_size, s[1], n + 1);
    }
    u64 loaded[3] = {n[0] ? s[0]->va : 0, n[1] ? s[1]->va : 0, 0};
    for (u32 k = 0; k < 3 && !bad && n[0] == 1 && n[1] == 1 && loaded[0] != loaded[1]; k++) {
        sd_wish alike = *wish;
        sd_made other;
        s[0]->va = s[1]->va = loaded[k];
        for (u32 each = 0; each < 2; each++) {
            alike.segments[each] = s[each];
            alike.segment_count[each] = 1;
        }
        bad = make_both(base, base_size, target, target_size, &alike, &small, &other);
        the_smaller(made, &other);
    }
    if (small && !bad && wish->arch < 0 && mistaken(made)) {
        sd_wish plain = *wish;
        sd_made other;
        plain.arch = SD_PLAIN;
        bad = make_both(base, base_size, target, target_size, &plain, &small, &other);
        the_smaller(made, &other);
    }
    if (bad)
        sd_free(made);
    return bad;
}
void sd_free(sd_made *made)
{
    free(made->patch);
    made->patch = 0;
}
