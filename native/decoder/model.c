/* A binary range coder and a mixer of adaptive probabilities. Integers only: every platform computes the same
 * bits. Probabilities are P(1) in 1/65536; what is mixed is ln(p / (1 - p)) in 1/256. */
#include "core.h"

/* 65536 / (1 + e^-x) at x = 0, 1/4, .. 12 */
static const u16 SQUASH[49] = {
    32768, 36843, 40793, 44511, 47911, 50941, 53581, 55834, 57724, 59287, 60565, 61598, 62428, 63090, 63615, 64030,
    64357, 64614, 64816, 64974, 65097, 65194, 65269, 65328, 65374, 65410, 65438, 65459, 65476, 65489, 65500, 65508,
    65514, 65519, 65523, 65526, 65528, 65530, 65531, 65532, 65533, 65534, 65534, 65535, 65535, 65535, 65535, 65535,
    65535};
/* 1024 ln(1 + k / 32) */
static const u16 LOG[33] = {
    0, 32, 62, 92, 121, 149, 176, 203, 228, 254, 278, 303, 326, 349, 372, 394,
    415, 436, 457, 477, 497, 517, 536, 555, 573, 591, 609, 626, 644, 661, 677, 694,
    710};
/* how far a counter moves at its n-th sight, in 1/65536 */
static const u16 RATE[32] = {
    40960, 25206, 18204, 14247, 11703, 9930, 8623, 7620, 6827, 6183, 5650, 5201, 4819, 4489, 4201, 3948,
    2888, 2241, 1738, 1348, 1046, 811, 629, 488, 379, 294, 228, 177, 137, 106, 83, 64};
static const u8 TRUST[4] = {0, 9, 12, 14}; /* a young counter's word counts less, in 1/16 */

const sd_size sd_sizes[4] = {
    /* slots pairs links history sets seen memory lazy rate */
    {0, 0, 0, 0, 0, 0, 0, 0, 0},
    {1536, 192, 96, 0, 24, 0, 16u << 10, 1, 20},
    {11264, 1024, 512, 0, 96, 0, 64u << 10, 1, 24},
    {1u << 21, 1u << 16, 1u << 14, 1u << 22, 1024, 1u << 19, 16u << 20, 0, 28},
};

/* --- the range coder ------------------------------------------------------------------------------------ */
static u8 next_byte(sd_coder *c)
{
    if (c->at == c->have) {
        u32 most = c->left < sizeof c->in ? c->left : (u32)sizeof c->in;
        c->have = most && !c->failed ? (u32)c->io->read(c->io->user, c->in, most) : 0;
        c->at = 0;
        if (!c->have || c->have > most) {
            c->have = 0;
            if (most || ++c->beyond > 4) /* the encoder leaves out at most four bytes of zero */
                c->failed = c->failed ? c->failed : SD_CUT;
            return 0;
        }
        c->left -= c->have;
    }
    return c->in[c->at++];
}
/* What follows the last bit that mattered must be there too: a patch that was cut is never taken for whole. */
void sd_coder_drain(sd_coder *c)
{
    while (!SD_MAKES(c->encoding) && !c->failed && (c->left || c->at < c->have))
        next_byte(c);
}
void sd_coder_start_decode(sd_coder *c)
{
    c->range = 0xFFFFFFFFu;
    c->code = 0;
    for (int k = 0; k < 4; k++)
        c->code = c->code << 8 | next_byte(c);
}
#ifndef SD_DECODER_ONLY
#include <stdlib.h>
static void put_byte(sd_coder *c, u8 byte)
{
    if (c->length == c->room) {
        size_t room = c->room * 2 + 4096;
        u8 *more = realloc(c->out, room);
        if (!more) {
            c->failed = SD_MEMORY;
            return;
        }
        c->out = more;
        c->room = room;
    }
    c->out[c->length++] = byte;
}
static void shift_low(sd_coder *c)
{
    if ((u32)c->low < 0xFF000000u || c->low >> 32) {
        u8 carry = (u8)(c->low >> 32);
        if (c->started)
            put_byte(c, (u8)(c->cache + carry));
        for (; c->pending; c->pending--)
            put_byte(c, (u8)(0xFF + carry));
        c->cache = (u8)(c->low >> 24);
        c->started = 1;
    } else
        c->pending++;
    c->low = (c->low & 0x00FFFFFF) << 8;
}
void sd_coder_start_encode(sd_coder *c)
{
    c->encoding = 1;
    c->range = 0xFFFFFFFFu;
}
void sd_coder_finish(sd_coder *c)
{
    size_t from = c->length;
    for (int k = 0; k < 5; k++)
        shift_low(c);
    for (int k = 0; k < 4 && c->length > from && !c->out[c->length - 1]; k++)
        c->length--;
}
#endif

int sd_bit(sd_coder *c, int bit, u32 p1)
{
    u32 bound = (u32)((u64)c->range * p1 >> 16);
#ifndef SD_DECODER_ONLY
    if (c->encoding) {
        if (bit)
            c->range = bound;
        else {
            c->low += bound;
            c->range -= bound;
        }
        while (c->range < 1u << 24) {
            c->range <<= 8;
            shift_low(c);
        }
        return bit;
    }
#endif
    bit = c->code < bound;
    if (bit)
        c->range = bound;
    else {
        c->code -= bound;
        c->range -= bound;
    }
    while (c->range < 1u << 24) {
        c->range <<= 8;
        c->code = c->code << 8 | next_byte(c);
    }
    return bit;
}

/* one counter by itself */
int sd_plain(sd_coder *c, u16 *p, int bit)
{
    u32 q = *p < 512 ? 512 : *p > 65024 ? 65024 : *p;
    bit = sd_bit(c, bit, q);
    *p = (u16)(bit ? *p + ((65535 - *p) >> 4) : *p - (*p >> 4));
    return bit;
}

/* --- ln and back -------------------------------------------------------------------------------------------- */
static u32 log1024(u32 x) /* x: 1..65536; 1024 ln x */
{
    u32 n = 0;
#if defined(__GNUC__) && !defined(SD_MCU) /* a small chip has no instruction for it */
    n = 31 - (u32)__builtin_clz(x);
#else
    for (u32 step = 16; step; step >>= 1)
        if (x >> n >> step)
            n += step;
#endif
    u32 f = (x << 16 >> n) & 0xFFFF; /* 16 bits of fraction */
    u32 k = f >> 11, r = f & 2047;
    return n * 710 + (n * 200 >> 8) + LOG[k] + ((u32)(LOG[k + 1] - LOG[k]) * r >> 11);
}
i32 sd_stretch(u32 p16)
{
    u32 p = (p16 & ~7u) + 4;
    return ((i32)log1024(p) - (i32)log1024(65536 - p)) / 4;
}
u32 sd_squash(i32 x)
{
    u32 a = x < 0 ? (u32)-x : (u32)x;
    if (a > 2815)
        a = 2815;
    u32 k = a >> 6, r = a & 63;
    u32 p = SQUASH[k] + ((u32)(SQUASH[k + 1] - SQUASH[k]) * r >> 6);
    if (p > 65533)
        p = 65533;
    return x < 0 ? 65536 - p : p;
}

/* --- slots ---------------------------------------------------------------------------------------------------- */
/* The key's place: one of two neighbours, told apart by three bits of check; UINT32_MAX when it has none. */
static u32 home(const sd_slots *t, u32 key) { return (u32)((u64)key * t->n >> 32); }
static u32 find(sd_slots *t, u32 key, int make)
{
    u32 a = home(t, key), b = a ^ 1;
    u8 check = (u8)(key & 7) << 5;
    if (b >= t->n)
        b = a;
    if (t->s[a] & 31 && (t->s[a] & 0xE0) == check)
        return a;
    if (t->s[b] & 31 && (t->s[b] & 0xE0) == check)
        return b;
    if (!make)
        return UINT32_MAX;
    if ((t->s[b] & 31) < (t->s[a] & 31))
        a = b;
    t->p[a] = 32768;
    t->s[a] = check;
    return a;
}
/* A key will be looked up: tables of megabytes are not in the processor's reach, so it is sent for them now. */
static void soon(const sd_slots *t, u32 key)
{
#if defined(__GNUC__) && !defined(SD_MCU)
    u32 a = home(t, key);
    __builtin_prefetch(t->p + a, 1);
    __builtin_prefetch(t->s + a, 1);
#else
    (void)t;
    (void)key;
#endif
}
static void learn(sd_slots *t, u32 at, int bit)
{
    u32 n = t->s[at] & 31;
    i32 p = t->p[at];
    t->p[at] = (u16)(p + (((bit ? 65535 : 0) - p) * (i32)RATE[n] >> 16));
    if (n < 16 || (n < t->rate && !(t->p[at] >> 3 & 7)))
        t->s[at]++;
}

void sd_mixer_clear(sd_mixer *m)
{
    for (u32 k = 0; k < m->slots.n; k++) {
        m->slots.p[k] = 32768;
        m->slots.s[k] = 0;
    }
    for (u32 k = 0; k < m->sets * SD_INPUTS; k++)
        m->weights[k] = 20000;
}
void sd_add(sd_mixer *m, u32 key)
{
    soon(&m->slots, key);
    m->key[m->n] = key;
    m->n++;
}
#define MOST_WEIGHT (1 << 22)
static i32 weight(i32 w) { return w > MOST_WEIGHT ? MOST_WEIGHT : w < -MOST_WEIGHT ? -MOST_WEIGHT : w; }
/* Codes one bit from the inputs added; each of two weight sets gives an opinion, their mean is coded. `lazy`
 * tables make a slot only for a bit of 0 (a surprise) or where one already is. */
int sd_mixed(sd_mixer *m, sd_coder *c, int bit, u32 set_a, u32 set_b, int lazy)
{
    i32 *wa = m->weights + (set_a % m->sets) * SD_INPUTS, *wb = m->weights + (set_b % m->sets) * SD_INPUTS;
    i64 da = 0, db = 0;
    int n = m->n;
    for (int k = 0; k < n; k++) {
        u32 at = m->slot[k] = find(&m->slots, m->key[k], !lazy);
        i32 x = 0;
        if (at != UINT32_MAX) {
            u32 seen = m->slots.s[at] & 31;
            x = sd_stretch(m->slots.p[at]) * TRUST[seen < 3 ? seen : 3] / 14;
        }
        m->in[k] = x;
        da += (i64)wa[k] * x;
        db += (i64)wb[k] * x;
    }
    m->in[n] = 90;
    da += (i64)wa[n] * 90;
    db += (i64)wb[n] * 90;
    i32 xa = (i32)(da >> 16), xb = (i32)(db >> 16);
    bit = sd_bit(c, bit, sd_squash((xa + xb) / 2));
    i32 ea = (bit << 16) - (i32)sd_squash(xa), eb = (bit << 16) - (i32)sd_squash(xb);
    for (int k = 0; k <= n; k++) {
        wa[k] = weight(wa[k] + (i32)((i64)ea * m->in[k] >> 14));
        wb[k] = weight(wb[k] + (i32)((i64)eb * m->in[k] >> 14));
    }
    for (int k = 0; k < n; k++) {
        if (m->slot[k] == UINT32_MAX && !bit)
            m->slot[k] = find(&m->slots, m->key[k], 1);
        if (m->slot[k] != UINT32_MAX)
            learn(&m->slots, m->slot[k], bit);
    }
    m->n = 0;
    return bit;
}
/* Lets slots see a byte that is not coded: bit by bit, each in all contexts. */
void sd_teach(sd_mixer *m, const u32 *contexts, const u8 *place, u32 n, u8 byte)
{
    u32 keys[8 * 5], c0 = 1, k = 0; /* five contexts at most */
    for (int b = 7; b >= 0; b--) {
        for (u32 i = 0; i < n; i++)
            soon(&m->slots, keys[k++] = sd_mix(contexts[i], c0 * 32 + place[i] + 16));
        c0 = c0 << 1 | (byte >> b & 1);
    }
    for (u32 i = 0; i < k; i++)
        learn(&m->slots, find(&m->slots, keys[i], 1), byte >> (7 - i / n) & 1);
}
