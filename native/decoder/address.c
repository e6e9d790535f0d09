/* Where an address of the base went, and the fields that hold one. */
#include "core.h"

/* --- addresses --------------------------------------------------------------------------------------------------- */
sd_gap sd_offset(const sd_segment *s, u32 n, sd_wide va)
{
    for (u32 k = 0; k < n; k++)
        if (va - s[k].va < s[k].len)
            return (sd_gap)(va - s[k].va) + s[k].off;
    return -1;
}
sd_wide sd_address(const sd_segment *s, u32 n, u32 off)
{
    for (u32 k = 0; k < n; k++)
        if (off - s[k].off < s[k].len)
            return s[k].va + (off - s[k].off);
    return n ? s[0].va + off - s[0].off : off;
}
/* What else is known of an image that has no such table is left as it is. */
int sd_esp_segments(const u8 *p, u32 size, sd_segment *out, u32 *n)
{
    if (size < 32 || p[0] != 0xE9 || !p[1] || p[1] > SD_MAX_SEGMENTS)
        return 0;
    for (u32 k = 0, at = 24; k < p[1]; k++, at += 8 + sd_l32(p + at + 4))
        if (at + 8 > size || sd_l32(p + at + 4) > size - at - 8)
            return 0;
    *n = p[1];
    for (u32 k = 0, at = 24; k < *n; k++, at = out[k - 1].off + out[k - 1].len)
        out[k] = (sd_segment){at + 8, sd_l32(p + at + 4), sd_l32(p + at)};
    return 1;
}
/* Where a byte of the base went: by the match at hand, else the longest of those around it, else the nearest. */
static u32 project(const sd_walk *w, u32 t)
{
    if (t - w->now.from < w->now.len)
        return t - w->now.from + w->now.at;
    u32 lo = 0, hi = w->matches;
    if (!hi)
        return t;
    while (lo < hi) {
        u32 mid = (lo + hi) / 2;
        if (sd_match_field(w, sd_order(w, mid), 1) <= t)
            lo = mid + 1;
        else
            hi = mid;
    }
    u32 best = SD_NONE, best_len = 0, near = SD_NONE, gap = SD_NONE;
    for (u32 k = lo, tries = 0; k-- && tries < 8; tries++) {
        u32 id = sd_order(w, k), from = sd_match_field(w, id, 1), len = sd_match_field(w, id, 2);
        if (t - from < len) {
            if (len > best_len)
                best = id, best_len = len;
        } else if (t - from - len < gap)
            near = id, gap = t - from - len;
    }
    if (best == SD_NONE) {
        if (lo < w->matches && sd_match_field(w, sd_order(w, lo), 1) - t < gap)
            near = sd_order(w, lo);
        best = near;
    }
    sd_match m = sd_match_of(w, best);
    sd_gap to = (sd_gap)t - m.from + m.at;
    return to < 0 ? 0 : (u32)to;
}
static u32 key32(sd_wide t) { return (u32)t ^ (u32)((u64)t >> 32) * 0x9E3779B1u; }
static sd_link *link_at(const sd_walk *w, u32 key, u32 level) { return w->links + ((u64)sd_mix(key, level) * w->link_n >> 32); }
static int linked(const sd_walk *w, sd_wide t, u32 shift, sd_wide *to)
{
    u32 key = key32(t >> shift) << 2 | (shift ? shift == 4 ? 2 : 3 : 1);
    sd_link *l = link_at(w, key, shift);
    if (l->key != key)
        return 0;
    *to = t + (sd_wide)(sd_gap)l->delta;
    return 1;
}
static void link_put(sd_walk *w, sd_wide t, u32 shift, sd_gap delta)
{
    u32 key = key32(t >> shift) << 2 | (shift ? shift == 4 ? 2 : 3 : 1);
    sd_link *l = link_at(w, key, shift);
    l->key = key;
    l->delta = (i32)delta;
}
static int away(const sd_walk *w, sd_wide t)
{
    const sd_machine *m = w->machine;
#ifdef SD_NARROW /* its machines all know */
    return t >= m->away_from && t < m->away_to;
#else
    if (m->away_to)
        return t >= m->away_from && t < m->away_to;
    u64 end = 0;
    for (u32 k = 0; k < w->old_segs; k++)
        if (w->old_seg[k].va + w->old_seg[k].len > end)
            end = w->old_seg[k].va + w->old_seg[k].len;
    return t >= end && t - end < (64u << 20);
#endif
}
/* Where what was at `t` is now: as learned, as the matches say, or as its neighbours outside the image went. */
static int moved(const sd_walk *w, sd_wide t, int anywhere, sd_wide *to)
{
    sd_gap off = sd_offset(w->old_seg, w->old_segs, t);
    if (off < 0 && !anywhere && !away(w, t))
        return 0;
    if (linked(w, t, 0, to))
        return 1;
    if (off >= 0)
        *to = sd_address(w->new_seg, w->new_segs, project(w, (u32)off));
    else if (!away(w, t) || (!linked(w, t, 4, to) && !linked(w, t, 10, to)))
        *to = t;
    return 1;
}

/* --- fields -------------------------------------------------------------------------------------------------------- */
void sd_find_field(const sd_walk *w, u32 j, u32 i, u32 left, int unit, sd_field *f)
{
    const sd_machine *m = w->machine;
    f->len = f->done = f->type = 0;
    if (!m->count)
        return;
    sd_wide pc = sd_address(w->old_seg, w->old_segs, j);
    if (pc & (m->step - 1u))
        return;
    sd_view v = {w->base + j, j, w->base_size - j, pc};
    for (u32 k = 0; k < m->count; k++) {
        const sd_form *form = m->forms + k;
        int lift;
        sd_wide to;
        if ((form->flags & SD_UNIT && !unit) || pc & (form->align - 1u) || form->len > left || form->len > v.fwd ||
            (form->flags & SD_DATA && pc >= m->code_from && pc < m->code_to))
            continue;
        sd_wide word = sd_word(v.p, form->len);
        if ((word & form->mask) != form->value || !(lift = form->get(&v, word, &f->old_target)) ||
            !moved(w, f->old_target, form->flags & SD_ANYWHERE, &to))
            continue;
        f->pc = sd_address(w->new_seg, w->new_segs, i);
        f->target = to;
        f->form = form;
        f->type = (u8)(k + 1);
        f->len = form->len;
        word = form->put(word, lift > 1 ? (lift & 1 ? 0 : f->pc - (u32)(lift >> 1)) : f->pc, to);
        for (u32 b = 0; b < f->len; b++)
            f->bytes[b] = (u8)(word >> 8 * b);
        return;
    }
}
#define NEAR (1 << 24)
static int is_near(sd_wide t, sd_wide old, sd_gap d)
{
#ifdef SD_NARROW /* where d may be around the world */
    (void)d;
    return (t > old ? t - old : old - t) <= NEAR;
#else
    (void)t, (void)old;
    return d <= NEAR && d >= -NEAR;
#endif
}
/* The field stands in the image: what it really points at. */
void sd_learn_field(sd_walk *w, const sd_field *f)
{
    sd_wide t;
    u32 back = w->at - f->len < SD_TAIL - 8 ? w->at - f->len : SD_TAIL - 8;
    sd_view v = {w->out + w->out_n - f->len, back, f->len, f->pc};
    sd_wide word = sd_word(v.p, f->len);
    if (f->form->flags & SD_HIGH || (word & f->form->mask) != f->form->value || !f->form->get(&v, word, &t) ||
        t == f->target)
        return;
    sd_gap d = (sd_gap)(t - f->old_target);
    if (!is_near(t, f->old_target, d))
        return;
    link_put(w, f->old_target, 0, d);
    if (sd_offset(w->old_seg, w->old_segs, f->old_target) < 0) {
        link_put(w, f->old_target, 4, d);
        link_put(w, f->old_target, 10, d);
    }
}
