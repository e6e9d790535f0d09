/* What of the target stands in the base: found on images whose address fields are blank, so that code that
 * was moved, and code that calls what was moved, still matches. */
#include "decoder/core.h"
#include <stdlib.h>

enum { SEED = 8, CHAIN = 48, LONG = 4096, AT_ONCE = 1 << 22 };

typedef struct {
    u32 *head, *next, bits, step;
} index_;

static u32 seed(const u8 *p, u32 bits) { return sd_mix(sd_l32(p), sd_l32(p + 4)) >> (32 - bits); }

/* The longest run of new[at..] in old; among equals the one nearest to where the last match would be. */
static u32 search(const index_ *x, const u8 *old, u32 on, const u8 *new_, u32 nn, u32 at, i64 shift, u32 *where)
{
    u32 best = 0, left = nn - at < AT_ONCE ? nn - at : AT_ONCE;
    i64 near = 0;
    if (left < SEED)
        return 0;
    u32 tries = CHAIN;
    i64 guess = (i64)at + shift;
    if (guess >= 0 && guess < on) {
        u32 most = on - (u32)guess < left ? on - (u32)guess : left;
        while (best < most && old[guess + best] == new_[at + best])
            best++;
        *where = (u32)guess;
        if (best >= LONG)
            return best;
    }
    for (u32 k = x->head[seed(new_ + at, x->bits)]; k != UINT32_MAX && tries--; k = x->next[k / x->step]) {
        u32 most = on - k < left ? on - k : left, n = 0;
        if (best && (best >= most || old[k + best] != new_[at + best]))
            continue;
        while (n < most && old[k + n] == new_[at + n])
            n++;
        i64 d = (i64)k - guess;
        if (d < 0)
            d = -d;
        if (n > best || (n == best && d < near)) {
            best = n;
            near = d;
            *where = k;
            if (best >= LONG)
                break;
        }
    }
    return best;
}

typedef struct {
    sd_match *m;
    u32 n, room;
} list;
static int append(list *l, u32 at, u32 from, u32 len)
{
    if (!len)
        return 1;
    if (l->n) { /* goes on where the last one ended */
        sd_match *b = l->m + l->n - 1;
        if (b->at + b->len == at && b->from + b->len == from && at != UINT32_MAX) {
            b->len += len;
            return 1;
        }
    }
    if (l->n == l->room) {
        u32 room = l->room * 2 + 1024;
        sd_match *more = realloc(l->m, room * sizeof *more);
        if (!more)
            return 0;
        l->m = more;
        l->room = room;
    }
    l->m[l->n++] = (sd_match){at, from, len, 0};
    return 1;
}

/* Percival's scan (bsdiff), over blanked images: matches are extended while more than half of the bytes agree. */
static int scan(const index_ *x, const u8 *old, u32 on, const u8 *new_, u32 nn, list *out, const sd_wish *wish)
{
    i64 at = 0, last_at = 0, last_from = 0, shift = 0;
    u32 len = 0, where = 0, said = 0;
    while (at < nn) {
        i64 old_score = 0, scored;
        at += len;
        for (scored = at; at < nn; at++) {
            len = search(x, old, on, new_, nn, (u32)at, shift, &where);
            for (; scored < at + len; scored++)
                if (scored + shift >= 0 && scored + shift < on && old[scored + shift] == new_[scored])
                    old_score++;
            if ((len == old_score && len) || len > old_score + 8)
                break;
            if (at + shift >= 0 && at + shift < on && old[at + shift] == new_[at])
                old_score--;
            if (wish->progress && (u32)(at >> 16) != said) {
                said = (u32)(at >> 16);
                if (wish->progress(wish->user, (u32)at / 2, nn))
                    return SD_CANCELLED;
            }
        }
        if (len == old_score && at < nn)
            continue;
        /* forwards from the last match, backwards from this one */
        i64 s = 0, best = 0, fwd = 0, back = 0;
        for (i64 k = 0; last_at + k < at && last_from + k < on;) {
            s += old[last_from + k] == new_[last_at + k];
            k++;
            if (s * 2 - k > best * 2 - fwd)
                best = s, fwd = k;
            if (!(k & (AT_ONCE - 1)) && wish->progress && wish->progress(wish->user, 0, nn))
                return SD_CANCELLED;
        }
        if (at < nn) {
            s = best = 0;
            for (i64 k = 1; at >= last_at + k && (i64)where >= k; k++) {
                s += old[where - k] == new_[at - k];
                if (s * 2 - k > best * 2 - back)
                    best = s, back = k;
            }
        }
        if (last_at + fwd > at - back) {
            i64 over = last_at + fwd - (at - back), cut = 0;
            s = best = 0;
            for (i64 k = 0; k < over; k++) {
                s += new_[last_at + fwd - over + k] == old[last_from + fwd - over + k];
                s -= new_[at - back + k] == old[(i64)where - back + k];
                if (s > best)
                    best = s, cut = k + 1;
            }
            fwd += cut - over;
            back -= cut;
        }
        if (!append(out, (u32)last_at, (u32)last_from, (u32)fwd))
            return SD_MEMORY;
        last_at = at - back;
        last_from = (i64)where - back;
        shift = (i64)where - at;
    }
    return SD_OK;
}

/* What names keep apart: stretches between matches, as far as most of their bytes agree with fields blank. */
static void fill_gaps(list *l, const u8 *old, u32 on, const u8 *new_, u32 nn)
{
    for (u32 k = 0; k <= l->n; k++) {
        sd_match none = {0, 0, 0, 0}, *a = k ? l->m + k - 1 : &none, *b = k < l->n ? l->m + k : 0;
        u32 at = a->at + a->len, from = a->from + a->len, gap = (b ? b->at : nn) - at, fwd = 0, back = 0;
        i64 s = 0, best = 0;
        for (u32 i = 0; k && i < gap && from + i < on;) {
            s += old[from + i] == new_[at + i];
            i++;
            if (s * 2 - i > best)
                best = s * 2 - i, fwd = i;
        }
        a->len += fwd;
        gap -= fwd;
        s = best = 0;
        for (u32 i = 1; b && i <= gap && i <= b->from; i++) {
            s += old[b->from - i] == new_[b->at - i];
            if (s * 2 - i > best)
                best = s * 2 - i, back = i;
        }
        if (b)
            *b = (sd_match){b->at - back, b->from - back, b->len + back, 0};
    }
}

static int by_gain(const void *a, const void *b)
{
    u64 x = *(const u64 *)a, y = *(const u64 *)b;
    return x < y ? -1 : x > y;
}
/* What a match saves, roughly: its agreeing bytes. */
static i64 gain(const sd_match *m, const u8 *old, const u8 *new_, const sd_wish *wish)
{
    i64 same = 0;
    for (u32 k = 0; k < m->len; k++) {
        same += old[m->from + k] == new_[m->at + k];
        if (!((k + 1) & (AT_ONCE - 1)) && wish->progress) /* so that mapped images can be given back */
            (void)wish->progress(wish->user, 0, m->len);
    }
    return same;
}
/* Without matches that save too little: what they keep apart is joined by what lies around them. */
static void without_small(list *l, i64 least, const u8 *old, const u8 *new_, const sd_wish *wish)
{
    u32 n = 0;
    for (u32 k = 0; k < l->n; k++)
        if (gain(l->m + k, old, new_, wish) >= least)
            l->m[n++] = l->m[k];
    l->n = n;
}
/* Matches that cost more than they save go; the `most` best are kept in the decoder's memory. */
static u32 thin(list *l, u32 most, const u8 *old, const u8 *new_, const sd_wish *wish)
{
    u32 n = 0, kept = 0;
    u64 *score = malloc((l->n + 1) * sizeof *score);
    if (!score)
        return 0;
    for (u32 k = 0; k < l->n; k++) {
        u64 g = (u64)gain(l->m + k, old, new_, wish);
        if (g < 7)
            continue;
        score[n] = g << 32 | n;
        l->m[n++] = l->m[k];
    }
    l->n = n;
    qsort(score, n, sizeof *score, by_gain);
    for (u32 k = n; k-- > 0 && kept < most; kept++)
        l->m[(u32)score[k]].kept = 1;
    free(score);
    return kept;
}

int sd_matches(int arch, const u8 *old, u32 on, const sd_segment *so, u32 nso, const u8 *new_, u32 nn,
               const sd_segment *sn, u32 nsn, u32 most, int names, sd_match **out, u32 *count, u32 *kept,
               const sd_wish *wish)
{
    int large = (u64)on + nn > 256u << 20; /* no room for blank copies: the images themselves are compared */
    u8 *own_a = large ? 0 : malloc((size_t)on * 2 + 16), *own_b = large ? 0 : malloc((size_t)nn * 2 + 16);
    const u8 *blank_a = large || !own_a ? old : own_a + on, *blank_b = large || !own_b ? new_ : own_b + nn;
    const u8 *a = large || !names ? blank_a : own_a, *b = large || !names ? blank_b : own_b;
    index_ x = {0, 0, 16, 1};
    list l = {0, 0, 0};
    int bad = SD_MEMORY;
    while ((1u << x.bits) < on && x.bits < 24)
        x.bits++;
    if (on > 64u << 20)
        x.step = 8;
    x.head = malloc(sizeof(u32) << x.bits);
    x.next = malloc(sizeof(u32) * ((size_t)on / x.step + 1));
    if ((large || (own_a && own_b)) && x.head && x.next) {
        bad = SD_OK;
        if (!large && (!sd_blank(arch, old, on, so, nso, own_a + on, own_a) ||
                       !sd_blank(arch, new_, nn, sn, nsn, own_b + nn, own_b)))
            bad = SD_MEMORY;
        memset(x.head, 0xFF, sizeof(u32) << x.bits);
        for (u32 k = on >= SEED ? (on - SEED) / x.step * x.step + x.step : 0; k && !bad;) {
            k -= x.step;
            u32 *h = x.head + seed(a + k, x.bits);
            x.next[k / x.step] = *h;
            *h = k;
            if (!(k & 0xFFFFF) && wish->progress && wish->progress(wish->user, 0, nn))
                bad = SD_CANCELLED;
        }
        if (!bad)
            bad = scan(&x, a, on, b, nn, &l, wish);
        if (!bad) {
            if (names > 1)
                without_small(&l, names, a, b, wish);
            if (names)
                fill_gaps(&l, blank_a, on, blank_b, nn);
            *kept = thin(&l, most, blank_a, blank_b, wish);
        }
        if (!bad && (!append(&l, UINT32_MAX, UINT32_MAX, 1) || !(l.m[l.n - 1].kept = 1))) /* where the walk stops */
            bad = SD_MEMORY;
        if (!bad)
            *count = --l.n;
    }
    free(own_a);
    free(own_b);
    free(x.head);
    free(x.next);
    *out = l.m;
    if (bad) {
        free(l.m);
        *out = 0;
    }
    return bad;
}

int sd_runs(const u8 *old, uint64_t on, const u8 *new_, uint64_t nn, const sd_wish *wish, sd_copy **out, uint32_t *count)
{
    sd_match *found = 0;
    u32 kept = 0;
    *out = 0;
    *count = 0;
    if (on > 0x7FFFFFFF || nn > 0x7FFFFFFF)
        return SD_SIZE;
    int bad = sd_matches(SD_PLAIN, old, (u32)on, 0, 0, new_, (u32)nn, 0, 0, 0, 0, &found, count, &kept, wish);
    if (bad)
        return bad;
    *out = malloc((*count + (size_t)1) * sizeof **out);
    for (u32 k = 0; *out && k < *count; k++)
        (*out)[k] = (sd_copy){found[k].at, found[k].from, found[k].len};
    free(found);
    return *out ? SD_OK : SD_MEMORY;
}
