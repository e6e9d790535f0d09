/* Long runs of one image that stand in another, wherever they stand: how images of gigabytes are taken apart before
 * anything is coded. One rolling hash goes over both; where its value is rare enough, a place is remembered (the
 * base) or looked up (the target), and a hit is grown both ways. Memory is the table alone, whatever the images. */
#include "decoder/core.h"
#include <stdlib.h>

enum { WINDOW = 64, ENTRIES_MOST = 1 << 23, SAY_EVERY = 1 << 23 };

typedef struct {
    u32 check, at;
} place;
typedef struct {
    place *p;
    u32 bits;     /* 2^bits entries */
    u64 rare;     /* a place counts where hash & rare is 0 */
    u64 gear[256];
} places;

static void ready(places *t, u64 on)
{
    u64 s = 0x9E3779B97F4A7C15u;
    for (u32 k = 0; k < 256; k++) { /* splitmix64 */
        u64 z = s += 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        t->gear[k] = z ^ z >> 31;
    }
    u32 thin = 5; /* a place in 32 bytes, in large images fewer */
    while (on >> thin > ENTRIES_MOST / 3)
        thin++;
    t->rare = (((u64)1 << thin) - 1) << 44;
    t->bits = 12;
    while ((u64)1 << t->bits < (on >> thin) * 2 && t->bits < 23)
        t->bits++;
}
static place *slot(const places *t, u64 h) { return t->p + (h * 0xD6E8FEB86659FD93u >> (64 - t->bits)); }
static u32 check(u64 h) { return (u32)(h >> 3) | 1; }

/* How far two runs agree, at most `most` bytes. */
static u64 agree(const u8 *a, const u8 *b, u64 most)
{
    u64 n = 0;
    while (n + 256 <= most && !memcmp(a + n, b + n, 256))
        n += 256;
    while (n < most && a[n] == b[n])
        n++;
    return n;
}

static int learn_base(places *t, const u8 *old, u64 on, const sd_wish *wish)
{
    u64 h = 0, last = 0;
    for (u64 k = 0; k < on; k++) {
        h = (h << 1) + t->gear[old[k]];
        if (!(h & t->rare) && k >= last + 16) { /* runs of one byte do not fill the table */
            place *p = slot(t, h);
            last = k;
            if (!p->check) {
                p->check = check(h);
                p->at = (u32)(k + 1);
            }
        }
        if (!(k & (SAY_EVERY - 1)) && wish->progress && wish->progress(wish->user, (u32)(k >> 1 >> 10), (u32)(on >> 10) + 1))
            return SD_CANCELLED;
    }
    return SD_OK;
}

typedef struct {
    sd_copy *c;
    u32 n, room;
} list;
static int append(list *l, u64 at, u64 from, u64 len)
{
    if (l->n && l->c[l->n - 1].at + l->c[l->n - 1].len == at && l->c[l->n - 1].from + l->c[l->n - 1].len == from) {
        l->c[l->n - 1].len += len;
        return 1;
    }
    if (l->n == l->room) {
        u32 room = l->room * 2 + 4096;
        sd_copy *more = realloc(l->c, room * sizeof *more);
        if (!more)
            return 0;
        l->c = more;
        l->room = room;
    }
    l->c[l->n++] = (sd_copy){at, from, len};
    return 1;
}

static int walk(const places *t, const u8 *old, u64 on, const u8 *new_, u64 nn, u32 shortest, list *l, const sd_wish *wish)
{
    u64 h = 0, said = 0, done = 0, warm = 0; /* done: end of the last copy; warm: from here on h is of these bytes */
    i64 shift = 0;
    for (u64 k = 0; k < nn; k++) {
        h = (h << 1) + t->gear[new_[k]];
        if (k - said >= SAY_EVERY) {
            said = k;
            if (wish->progress && wish->progress(wish->user, (u32)((nn + k) >> 1 >> 10), (u32)(nn >> 10) + 1))
                return SD_CANCELLED;
        }
        if (h & t->rare || k < warm + WINDOW)
            continue;
        const place *p = slot(t, h);
        u64 end = k + 1, from = 0, fwd = 0, back = 0;
        i64 same = (i64)end + shift;
        if (same >= WINDOW && same <= (i64)on && !memcmp(old + same - WINDOW, new_ + end - WINDOW, WINDOW))
            from = (u64)same; /* where the last one would go on */
        else if (p->check == check(h) && p->at >= WINDOW && !memcmp(old + p->at - WINDOW, new_ + end - WINDOW, WINDOW))
            from = p->at;
        else
            continue;
        while (back < end - done && back < from && old[from - 1 - back] == new_[end - 1 - back])
            back++;
        for (u64 most = on - from < nn - end ? on - from : nn - end; fwd < most;) { /* in steps, so that somebody hears */
            u64 part = most - fwd < SAY_EVERY ? most - fwd : SAY_EVERY, n = agree(old + from + fwd, new_ + end + fwd, part);
            fwd += n;
            if (n < part)
                break;
            if (wish->progress && wish->progress(wish->user, (u32)((nn + end + fwd) >> 1 >> 10), (u32)(nn >> 10) + 1))
                return SD_CANCELLED;
        }
        if (back + fwd < shortest)
            continue;
        if (!append(l, end - back, from - back, back + fwd))
            return SD_MEMORY;
        shift = (i64)from - (i64)end;
        done = warm = end + fwd;
        k = done - 1;
    }
    return SD_OK;
}

int sd_copies(const u8 *old, uint64_t on, const u8 *new_, uint64_t nn, uint32_t shortest, const sd_wish *wish, sd_copy **out,
              uint32_t *count)
{
    places t;
    list l = {0, 0, 0};
    *out = 0;
    *count = 0;
    if (on > UINT32_MAX || nn > UINT32_MAX)
        return SD_SIZE;
    ready(&t, on);
    t.p = calloc((size_t)1 << t.bits, sizeof *t.p);
    int bad = t.p ? learn_base(&t, old, on, wish) : SD_MEMORY;
    if (!bad)
        bad = walk(&t, old, on, new_, nn, shortest, &l, wish);
    free(t.p);
    if (bad) {
        free(l.c);
        return bad;
    }
    *out = l.c;
    *count = l.n;
    return SD_OK;
}
void sd_free_copies(sd_copy *copies) { free(copies); }
