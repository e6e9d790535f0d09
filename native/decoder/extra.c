/* Bytes that stand nowhere in the base. */
#include "core.h"

typedef struct {
    sd_wide at;
    u32 len;
} chase;

static u8 extra_byte(sd_walk *w, chase *m, u8 before, u8 after)
{
    u8 guess = 0;
    if (SD_LARGE(w) && !m->len && w->at >= 5) {
        m->at = w->seen[sd_seen_key(w, w->out + w->out_n - 5)];
        if (m->at != SD_NONE) {
            u8 b;
            while (m->len < 32 && m->len < m->at && m->len < w->at && sd_seen_byte(w, m->at - 1 - m->len, &b) &&
                   b == w->out[w->out_n - 1 - m->len])
                m->len++;
            if (m->len < 4)
                m->len = 0;
        }
    }
    if (m->len && !sd_seen_byte(w, m->at, &guess))
        m->len = 0;
    u32 o = sd_tail32(w), c1 = o >> 24, c2 = o >> 16, c3 = o >> 8, o5 = w->out[w->out_n - 5], o6 = w->out[w->out_n - 6];
    u32 ml = m->len > 15 ? 15 : m->len;
    u32 cx[9] = {c1 | 0x100u,
                 c2 | 0x10000u,
                 m->len ? guess | ml << 8 | 0x6000000u : 0x6000000u,
                 before | c1 << 8 | 0x7000000u,
                 after | c1 << 8 | 0x8000000u,
                 c3 | 0x3000000u,
                 sd_mix(o, 4),
                 sd_mix(o, o5 | o6 << 8 | 0x10000u),
                 (w->at & 3) | c1 << 8 | 0x9000000u};
    int inputs = SD_LARGE(w) ? 9 : 6;
    u32 c0 = 1, sets = w->m.sets, third = sets / 4;
    u8 sym = sd_wanted(w);
    for (int b = 7; b >= 0; b--) {
        u32 expected = m->len && (guess | 256u) >> (b + 1) == c0 ? 1 + ml : 0;
        for (int k = 0; k < inputs; k++)
            sd_add(&w->m, sd_mix(cx[k], c0 * 32 + (u32)k + 16));
        int bit = sd_mixed(&w->m, &w->c, sym >> b & 1, sets - third + expected % third,
                           sets - third + (7 - (u32)b) % third, 0);
        c0 = c0 << 1 | (u32)bit;
    }
    sym = (u8)c0;
    if (m->len) {
        if (guess == sym)
            m->len = m->len < 200 ? m->len + 1 : 200, m->at++;
        else
            m->len = 0;
    }
    return sym;
}
void sd_prime(sd_walk *w)
{
    const u8 *p = w->base;
    u32 from = w->base_size - w->h.prime, inputs = SD_LARGE(w) ? 4 : 2;
    for (u32 q = from; q < w->base_size; q++) {
        if (q < 6)
            continue;
        u32 o = sd_l32(p + q - 4);
        u32 cx[5] = {(o >> 24) | 0x100u, (o >> 16) | 0x10000u, (o >> 8) | 0x3000000u, sd_mix(o, 4),
                     sd_mix(o, p[q - 5] | (u32)p[q - 6] << 8 | 0x10000u)};
        static const u8 place[5] = {0, 1, 5, 6, 7};
        sd_teach(&w->m, cx, place, inputs + 1, p[q]);
    }
    for (u32 q = from < 5 ? 5 : from; SD_LARGE(w) && q < w->base_size; q++)
        w->seen[sd_seen_key(w, p + q - 5)] = q;
}
void sd_extra(sd_walk *w, u32 end, u32 old_before, sd_gap old_shift)
{
    chase m = {0, 0};
    while (w->at < end && !w->c.failed) {
        sd_gap a = (sd_gap)w->at + old_shift;
        u8 before = old_before < w->base_size ? w->base[old_before] : 0;
        u8 after = a >= 0 && a < (sd_gap)w->base_size ? w->base[a] : 0;
        u8 sym = extra_byte(w, &m, before, after);
        sd_emit(w, sym);
        sd_seen_put(w);
        old_before++;
        w->hist = w->hist << 1 | 1;
    }
}
