/* The script: which stretches of the base stand where in the image. Both sides tell it, number by number. */
#include "core.h"

/* --- numbers: the count of bits in unary, then the bits; the first two and the count have counters ----------------- */
u32 sd_number(sd_walk *w, int kind, u32 v)
{
    u16 *t = w->nums[kind];
    u64 x = (u64)v + 1, r = 1;
    u32 n = 0, all = 0;
    while (SD_MAKES(x >> (all + 1)))
        all++;
    while (n < 32 && sd_plain(&w->c, t + n, n < all))
        n++;
    for (u32 q = n; q--;) {
        int bit = SD_MAKES(x >> q & 1);
        u32 d = n - 1 - q;
        bit = d == 0 ? sd_plain(&w->c, t + 33 + n, bit) : sd_bit(&w->c, bit, 32768);
        r = r << 1 | (u64)bit;
    }
    return (u32)(r - 1);
}
u32 sd_zigzag(i64 v) { return v < 0 ? ((u32)-v << 1) - 1 : (u32)v << 1; }
i64 sd_zagzig(u32 z) { return z & 1 ? -((i64)(z >> 1) + 1) : (i64)(z >> 1); }

/* --- the script ------------------------------------------------------------------------------------------------------ */
u32 sd_match_field(const sd_walk *w, u32 k, u32 which)
{
    const u8 *p = w->match_mem + (size_t)k * 3 * w->width + which * w->width;
    return w->width == 4 ? sd_l32(p) : sd_l16(p) | (u32)p[2] << 16;
}
sd_match sd_match_of(const sd_walk *w, u32 k)
{
    sd_match m = {sd_match_field(w, k, 0), sd_match_field(w, k, 1), sd_match_field(w, k, 2), 1};
    return m;
}
static void keep_match(sd_walk *w, u32 k, const sd_match *m)
{
    u32 v[3] = {m->at, m->from, m->len};
    u8 *p = w->match_mem + (size_t)k * 3 * w->width;
    for (u32 a = 0; a < 3; a++)
        for (u32 b = 0; b < w->width; b++)
            *p++ = (u8)(v[a] >> 8 * b);
}
static u8 *order_at(const sd_walk *w, u32 k) { return w->match_mem + (size_t)w->matches * 3 * w->width + k * 2; }
u32 sd_order(const sd_walk *w, u32 k) { return sd_l16(order_at(w, k)); }
static void set_order(sd_walk *w, u32 k, u32 v) { order_at(w, k)[0] = (u8)v, order_at(w, k)[1] = (u8)(v >> 8); }
static int later(const sd_walk *w, u32 a, u32 b)
{
    u32 x = sd_match_field(w, a, 1), y = sd_match_field(w, b, 1);
    return x > y || (x == y && a > b);
}
/* Heap sort of the matches by place in the base. */
static void sift(sd_walk *w, u32 k, u32 n)
{
    for (u32 c; (c = 2 * k + 1) < n; k = c) {
        if (c + 1 < n && later(w, sd_order(w, c + 1), sd_order(w, c)))
            c++;
        u32 a = sd_order(w, k), b = sd_order(w, c);
        if (!later(w, b, a))
            return;
        set_order(w, k, b);
        set_order(w, c, a);
    }
}
static void sort_matches(sd_walk *w)
{
    u32 n = w->matches;
    for (u32 k = 0; k < n; k++)
        set_order(w, k, k);
    for (u32 k = n / 2; k--;)
        sift(w, k, n);
    for (u32 k = n; k-- > 1;) {
        u32 a = sd_order(w, 0);
        set_order(w, 0, sd_order(w, k));
        set_order(w, k, a);
        sift(w, 0, k);
    }
}
/* One match, told from where the last one ended (at, from); it ends before `end` in the target. One of no length
 * says nothing: refused, so that a patch cannot keep a decoder busy for longer than its image is worth. */
int sd_code_match(sd_walk *w, int kind, u32 at, u32 from, u32 end, sd_match *m)
{
    u32 gap = sd_number(w, kind, m->at - at), len = sd_number(w, kind + 1, m->len);
    u32 jump = sd_number(w, kind + 2, sd_zigzag((i64)m->from - from));
    i64 start = (i64)from + sd_zagzig(jump);
    if (w->c.failed || !len || start < 0 || start > w->base_size || len > w->base_size - (u32)start || gap > end - at ||
        len > end - at - gap)
        return w->c.failed = w->c.failed ? w->c.failed : SD_BAD_PATCH;
    m->at = at + gap;
    m->from = (u32)start;
    m->len = len;
    return SD_OK;
}
int sd_read_script(sd_walk *w)
{
    u32 at = 0, from = 0;
    const sd_match *g = SD_MAKES(w->given);
    for (u32 k = 0; k < w->matches; k++) {
        sd_match m = {0, 0, 0, 0};
        if (g) {
            while (!g->kept)
                g++;
            m = *g++;
        }
        if (sd_code_match(w, 0, at, from, w->target_size, &m))
            return w->c.failed;
        keep_match(w, k, &m);
        at = m.at + m.len;
        from = m.from + m.len;
    }
    sort_matches(w);
    return SD_OK;
}
