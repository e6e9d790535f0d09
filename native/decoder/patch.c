/* A patch: header, script of matches, then every byte of the image coded against a prediction. Both sides make
 * the same walk; the coder decides whether bits are read or written. */
#include "core.h"

static void code_segments(sd_walk *w)
{
    u32 parsed = (w->h.arch == SD_XTENSA || w->h.arch == SD_RISCV) && sd_esp_segments(w->base, w->base_size, w->old_seg, &w->old_segs);
    if (!parsed) {
        w->old_segs = sd_number(w, 3, w->old_segs);
        if (w->old_segs > SD_MAX_SEGMENTS) {
            w->c.failed = SD_BAD_PATCH;
            return;
        }
        for (u32 k = 0; k < w->old_segs; k++) {
            sd_segment *s = w->old_seg + k;
            s->off = sd_number(w, 4, s->off);
            s->len = sd_number(w, 4, s->len);
            u32 high = sd_number(w, 5, (u32)(s->va >> 32));
            s->va = (u64)high << 32 | sd_number(w, 5, (u32)s->va);
#ifdef SD_NARROW
            if (high)
                w->c.failed = SD_LEFT_OUT;
#endif
        }
    }
    w->new_segs = sd_number(w, 3, w->new_segs);
    if (w->new_segs > SD_MAX_SEGMENTS) {
        w->c.failed = SD_BAD_PATCH;
        return;
    }
    for (u32 k = 0; k < w->new_segs; k++) {
        sd_segment *s = w->new_seg + k, *o = w->old_seg + k, *b = s - 1;
        u32 off = k < w->old_segs ? o->off : 0, len = k < w->old_segs ? o->len : 0;
        u64 va = k < w->old_segs ? o->va : 0;
        if (k && k < w->old_segs)
            off = b->off + b->len + (o->off - o[-1].off - o[-1].len);
        s->off = off + (u32)sd_zagzig(sd_number(w, 6, sd_zigzag((i32)(s->off - off))));
        s->len = len + (u32)sd_zagzig(sd_number(w, 6, sd_zigzag((i32)(s->len - len))));
        s->va = va + (u64)sd_zagzig(sd_number(w, 6, sd_zigzag((i32)(s->va - va))));
    }
}

static void one_match(sd_walk *w, const sd_match *m, u32 *from)
{
    u32 mark = (u32)w->c.length;
    sd_extra(w, m->at, *from, (sd_gap)m->from - (sd_gap)m->at);
    if (SD_MAKES(w->made))
        w->made->cost_extra += (u32)w->c.length - mark;
    mark = (u32)w->c.length;
    w->now = *m;
    sd_covered(w);
    if (SD_MAKES(w->made))
        w->made->cost_covered += (u32)w->c.length - mark, w->made->covered += m->len;
    *from = m->from + m->len;
}
/* What lies before the next kept match: matches too small to be worth the decoder's memory. */
static void small_matches(sd_walk *w, u32 end, u32 *from)
{
    u32 n = 0;
    if (SD_MAKES(w->given))
        while (w->given[n].at < end && !w->given[n].kept)
            n++;
    for (n = sd_number(w, 7, n); n && !w->c.failed; n--) {
        sd_match m = {w->at, *from, 0, 0};
        if (SD_MAKES(w->given))
            m = *w->given++;
        if (!sd_code_match(w, 8, w->at, *from, end, &m))
            one_match(w, &m, from);
    }
}

int sd_run(sd_walk *w, const sd_match *given)
{
    u32 from = 0;
    w->given = given;
    code_segments(w);
    int bad = w->c.failed ? w->c.failed : sd_read_script(w);
    if (bad)
        return bad;
    if (SD_MAKES(w->made))
        w->made->cost_script = (u32)w->c.length;
    sd_prime(w);
    for (u32 k = 0; k <= w->matches && !w->c.failed; k++) {
        sd_match m = {w->target_size, w->base_size, 0, 1};
        if (k < w->matches)
            m = sd_match_of(w, k);
        small_matches(w, m.at, &from);
        one_match(w, &m, &from);
        if (SD_MAKES(w->given) && k < w->matches)
            w->given++;
    }
    sd_flush(w);
    sd_coder_drain(&w->c);
    return w->c.failed ? w->c.failed : w->crc == w->h.target_crc ? SD_OK : SD_RESULT;
}

int sd_apply(const u8 *base, u32 base_size, const sd_io *io, void *memory, size_t memory_size, u32 max_target)
{
    u8 head[SD_HEADER];
    sd_header h;
    size_t n = 0, more;
    while (n < SD_HEADER && (more = io->read(io->user, head + n, SD_HEADER - n)) && more <= SD_HEADER - n)
        n += more;
    int bad = sd_read_header(head, n, &h);
    if (bad)
        return bad;
#ifdef SD_MCU
    if (h.profile == SD_LINUX_16M)
        return SD_LEFT_OUT;
#endif
    if (h.arch && !sd_machines[h.arch].count)
        return SD_LEFT_OUT;
    if (h.target_size > max_target)
        return SD_LIMIT;
#ifdef SD_NARROW
    if ((h.base_size | h.target_size) >> 30) /* places in either are told from each other by a sign */
        return SD_LEFT_OUT;
#endif
    if (h.memory > memory_size)
        return SD_MEMORY;
    if (base_size != h.base_size || (!io->base_checked && sd_crc32(0, base, base_size) != h.base_crc))
        return SD_BASE;
    u8 *at = (u8 *)(((uintptr_t)memory + 7) & ~(uintptr_t)7);
    sd_walk *w = (sd_walk *)(void *)at;
    memset(w, 0, sizeof *w);
    w->h = h;
    w->base = base;
    w->c.io = io;
    at += (sizeof *w + 7) & ~(size_t)7; /* SD_STATE has room for both roundings */
    bad = sd_layout(w, at, memory_size - (size_t)(at - (u8 *)memory));
    if (bad)
        return bad;
    w->c.left = h.body;
    sd_coder_start_decode(&w->c);
    return sd_run(w, 0);
}
