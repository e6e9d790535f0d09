/* A patch: header, script of matches, then every byte of the image coded against a prediction. Both sides make
 * the same walk; the coder decides whether bits are read or written. */
#include "core.h"

#define MAGIC "SKD2"
#define NONE UINT32_MAX
#define BLOCK 48
#define PAGE 4096

#ifdef SD_MCU /* a small table for small flash */
u32 sd_crc32(u32 crc, const u8 *p, size_t n)
{
    static const u32 T[16] = {0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
                              0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
                              0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    crc = ~crc;
    while (n--) {
        crc ^= *p++;
        crc = crc >> 4 ^ T[crc & 15];
        crc = crc >> 4 ^ T[crc & 15];
    }
    return ~crc;
}
#else
static const u32 CRC[256] = {
    0x00000000, 0x77073096, 0xEE0E612C, 0x990951BA, 0x076DC419, 0x706AF48F, 0xE963A535, 0x9E6495A3,
    0x0EDB8832, 0x79DCB8A4, 0xE0D5E91E, 0x97D2D988, 0x09B64C2B, 0x7EB17CBD, 0xE7B82D07, 0x90BF1D91,
    0x1DB71064, 0x6AB020F2, 0xF3B97148, 0x84BE41DE, 0x1ADAD47D, 0x6DDDE4EB, 0xF4D4B551, 0x83D385C7,
    0x136C9856, 0x646BA8C0, 0xFD62F97A, 0x8A65C9EC, 0x14015C4F, 0x63066CD9, 0xFA0F3D63, 0x8D080DF5,
    0x3B6E20C8, 0x4C69105E, 0xD56041E4, 0xA2677172, 0x3C03E4D1, 0x4B04D447, 0xD20D85FD, 0xA50AB56B,
    0x35B5A8FA, 0x42B2986C, 0xDBBBC9D6, 0xACBCF940, 0x32D86CE3, 0x45DF5C75, 0xDCD60DCF, 0xABD13D59,
    0x26D930AC, 0x51DE003A, 0xC8D75180, 0xBFD06116, 0x21B4F4B5, 0x56B3C423, 0xCFBA9599, 0xB8BDA50F,
    0x2802B89E, 0x5F058808, 0xC60CD9B2, 0xB10BE924, 0x2F6F7C87, 0x58684C11, 0xC1611DAB, 0xB6662D3D,
    0x76DC4190, 0x01DB7106, 0x98D220BC, 0xEFD5102A, 0x71B18589, 0x06B6B51F, 0x9FBFE4A5, 0xE8B8D433,
    0x7807C9A2, 0x0F00F934, 0x9609A88E, 0xE10E9818, 0x7F6A0DBB, 0x086D3D2D, 0x91646C97, 0xE6635C01,
    0x6B6B51F4, 0x1C6C6162, 0x856530D8, 0xF262004E, 0x6C0695ED, 0x1B01A57B, 0x8208F4C1, 0xF50FC457,
    0x65B0D9C6, 0x12B7E950, 0x8BBEB8EA, 0xFCB9887C, 0x62DD1DDF, 0x15DA2D49, 0x8CD37CF3, 0xFBD44C65,
    0x4DB26158, 0x3AB551CE, 0xA3BC0074, 0xD4BB30E2, 0x4ADFA541, 0x3DD895D7, 0xA4D1C46D, 0xD3D6F4FB,
    0x4369E96A, 0x346ED9FC, 0xAD678846, 0xDA60B8D0, 0x44042D73, 0x33031DE5, 0xAA0A4C5F, 0xDD0D7CC9,
    0x5005713C, 0x270241AA, 0xBE0B1010, 0xC90C2086, 0x5768B525, 0x206F85B3, 0xB966D409, 0xCE61E49F,
    0x5EDEF90E, 0x29D9C998, 0xB0D09822, 0xC7D7A8B4, 0x59B33D17, 0x2EB40D81, 0xB7BD5C3B, 0xC0BA6CAD,
    0xEDB88320, 0x9ABFB3B6, 0x03B6E20C, 0x74B1D29A, 0xEAD54739, 0x9DD277AF, 0x04DB2615, 0x73DC1683,
    0xE3630B12, 0x94643B84, 0x0D6D6A3E, 0x7A6A5AA8, 0xE40ECF0B, 0x9309FF9D, 0x0A00AE27, 0x7D079EB1,
    0xF00F9344, 0x8708A3D2, 0x1E01F268, 0x6906C2FE, 0xF762575D, 0x806567CB, 0x196C3671, 0x6E6B06E7,
    0xFED41B76, 0x89D32BE0, 0x10DA7A5A, 0x67DD4ACC, 0xF9B9DF6F, 0x8EBEEFF9, 0x17B7BE43, 0x60B08ED5,
    0xD6D6A3E8, 0xA1D1937E, 0x38D8C2C4, 0x4FDFF252, 0xD1BB67F1, 0xA6BC5767, 0x3FB506DD, 0x48B2364B,
    0xD80D2BDA, 0xAF0A1B4C, 0x36034AF6, 0x41047A60, 0xDF60EFC3, 0xA867DF55, 0x316E8EEF, 0x4669BE79,
    0xCB61B38C, 0xBC66831A, 0x256FD2A0, 0x5268E236, 0xCC0C7795, 0xBB0B4703, 0x220216B9, 0x5505262F,
    0xC5BA3BBE, 0xB2BD0B28, 0x2BB45A92, 0x5CB36A04, 0xC2D7FFA7, 0xB5D0CF31, 0x2CD99E8B, 0x5BDEAE1D,
    0x9B64C2B0, 0xEC63F226, 0x756AA39C, 0x026D930A, 0x9C0906A9, 0xEB0E363F, 0x72076785, 0x05005713,
    0x95BF4A82, 0xE2B87A14, 0x7BB12BAE, 0x0CB61B38, 0x92D28E9B, 0xE5D5BE0D, 0x7CDCEFB7, 0x0BDBDF21,
    0x86D3D2D4, 0xF1D4E242, 0x68DDB3F8, 0x1FDA836E, 0x81BE16CD, 0xF6B9265B, 0x6FB077E1, 0x18B74777,
    0x88085AE6, 0xFF0F6A70, 0x66063BCA, 0x11010B5C, 0x8F659EFF, 0xF862AE69, 0x616BFFD3, 0x166CCF45,
    0xA00AE278, 0xD70DD2EE, 0x4E048354, 0x3903B3C2, 0xA7672661, 0xD06016F7, 0x4969474D, 0x3E6E77DB,
    0xAED16A4A, 0xD9D65ADC, 0x40DF0B66, 0x37D83BF0, 0xA9BCAE53, 0xDEBB9EC5, 0x47B2CF7F, 0x30B5FFE9,
    0xBDBDF21C, 0xCABAC28A, 0x53B39330, 0x24B4A3A6, 0xBAD03605, 0xCDD70693, 0x54DE5729, 0x23D967BF,
    0xB3667A2E, 0xC4614AB8, 0x5D681B02, 0x2A6F2B94, 0xB40BBE37, 0xC30C8EA1, 0x5A05DF1B, 0x2D02EF8D};
u32 sd_crc32(u32 crc, const u8 *p, size_t n)
{
    crc = ~crc;
    while (n--)
        crc = crc >> 8 ^ CRC[(crc ^ *p++) & 255];
    return ~crc;
}
#endif

/* --- header ---------------------------------------------------------------------------------------------- */
static u32 put32(u8 *p, u32 v)
{
    for (int k = 0; k < 4; k++)
        p[k] = (u8)(v >> 8 * k);
    return 4;
}
static u32 put16(u8 *p, u32 v)
{
    p[0] = (u8)v;
    p[1] = (u8)(v >> 8);
    return 2;
}
#define HEADER (4 + 1 + 1 + 2 + 2 + 5 * 4 + 2 * SD_DIGEST + 4)
#define PRIME_UNIT 65536u /* primed bytes are told in these; what is left of the base at most */

int sd_header_write(const sd_header *h, u8 *p)
{
    u32 n = 4;
    memcpy(p, MAGIC, 4);
    p[n++] = (u8)(h->profile << 4 | h->arch);
    p[n++] = h->blocks;
    n += put16(p + n, h->matches);
    n += put16(p + n, (h->prime + PRIME_UNIT - 1) / PRIME_UNIT);
    n += put32(p + n, h->base_size);
    n += put32(p + n, h->target_size);
    n += put32(p + n, h->body);
    n += put32(p + n, h->base_crc);
    n += put32(p + n, h->target_crc);
    memcpy(p + n, h->base_sha256, SD_DIGEST);
    memcpy(p + n + SD_DIGEST, h->target_sha256, SD_DIGEST);
    n += 2 * SD_DIGEST;
    n += put32(p + n, sd_crc32(0, p, n));
    return (int)n;
}

int sd_read_header(const u8 *p, size_t length, sd_header *h)
{
    if (length < HEADER)
        return length >= 4 && memcmp(p, MAGIC, 4) ? SD_BAD_PATCH : SD_CUT;
    if (memcmp(p, MAGIC, 4) || sd_l32(p + HEADER - 4) != sd_crc32(0, p, HEADER - 4))
        return SD_BAD_PATCH;
    memset(h, 0, sizeof *h);
    h->profile = p[4] >> 4;
    h->arch = p[4] & 15;
    h->blocks = p[5];
    h->matches = sd_l16(p + 6);
    h->base_size = sd_l32(p + 10);
    h->target_size = sd_l32(p + 14);
    h->body = sd_l32(p + 18);
    h->base_crc = sd_l32(p + 22);
    h->target_crc = sd_l32(p + 26);
    memcpy(h->base_sha256, p + 30, SD_DIGEST);
    memcpy(h->target_sha256, p + 30 + SD_DIGEST, SD_DIGEST);
    u64 prime = (u64)sd_l16(p + 8) * PRIME_UNIT;
    h->prime = prime < h->base_size ? (u32)prime : h->base_size;
    h->length = HEADER;
    if (h->profile < SD_MCU_16K || h->profile > SD_LINUX_16M || h->arch >= SD_ARCHES || h->blocks > 1 ||
        h->base_size > 0xFFFFFF00u || h->target_size > 0xFFFFFF00u || h->matches > sd_most_matches(h))
        return SD_BAD_PATCH;
    h->memory = sd_memory_needed(h);
    return SD_OK;
}

/* --- memory: one piece, cut the same way everywhere ----------------------------------------------------------- */
static u32 width_of(const sd_header *h) { return (h->base_size | h->target_size) >> 24 ? 4 : 3; }
static void *take(u8 *memory, u32 *used, u32 n)
{
    u8 *p = memory ? memory + *used : 0;
    *used += (n + 7) & ~7u;
    return p;
}
static u32 lay(sd_walk *w, u8 *memory, const sd_header *h)
{
    const sd_size *z = &sd_sizes[h->profile];
    u32 at = 0;
    w->size = z;
    w->m.slots.n = z->slots;
    w->m.slots.lazy = z->lazy;
    w->m.slots.rate = z->rate;
    w->m.sets = z->sets;
    w->link_n = z->links;
    w->pair_n = z->pairs;
    w->history_n = z->history;
    w->seen_n = z->seen;
    w->width = width_of(h);
    w->m.slots.p = take(memory, &at, z->slots * 2);
    w->m.slots.s = take(memory, &at, z->slots);
    w->m.weights = take(memory, &at, z->sets * SD_INPUTS * 4);
    w->links = take(memory, &at, z->links * (u32)sizeof(sd_link));
    w->pairs = take(memory, &at, z->pairs * (u32)sizeof(sd_pair));
    w->seen = take(memory, &at, z->seen * 4);
    w->history = take(memory, &at, z->history);
    w->out = take(memory, &at, SD_TAIL + SD_OUT);
    w->match_mem = take(memory, &at, h->matches * (3 * w->width + 2));
    return at;
}
u32 sd_memory_needed(const sd_header *h)
{
    sd_walk w;
    return lay(&w, 0, h) + SD_STATE;
}
u32 sd_most_matches(const sd_header *h)
{
    sd_header none = *h;
    none.matches = 0;
    u32 most = (sd_sizes[h->profile].memory - sd_memory_needed(&none)) / (3 * width_of(h) + 2);
    return most < 65535 ? most : 65535;
}
int sd_layout(sd_walk *w, void *memory, size_t size)
{
    if (lay(w, memory, &w->h) > size)
        return SD_MEMORY;
    w->base_size = w->h.base_size;
    w->target_size = w->h.target_size;
    w->matches = w->h.matches;
    w->machine = &sd_machines[w->h.arch];
    sd_mixer_clear(&w->m);
    memset(w->links, 0, w->link_n * sizeof *w->links);
    memset(w->pairs, 0, w->pair_n * sizeof *w->pairs);
    memset(w->seen, 0xFF, w->seen_n * 4);
    memset(w->history, 0, w->history_n);
    memset(w->out, 0, SD_TAIL);
    w->out_n = SD_TAIL;
    for (u32 a = 0; a < sizeof w->nums / sizeof *w->nums; a++)
        for (u32 b = 0; b < sizeof *w->nums / sizeof **w->nums; b++)
            w->nums[a][b] = 32768;
    for (u32 a = 0; a < 256; a++)
        w->blocks[a] = 32768;
    for (u32 a = 0; a < 4; a++)
        w->pages[a] = 32768;
    return SD_OK;
}

/* --- numbers: the count of bits in unary, then the bits; the first two and the count have counters ----------------- */
static u32 number(sd_walk *w, int kind, u32 v)
{
    u16 *t = w->nums[kind];
    u64 x = (u64)v + 1;
    u32 n = 0, all = 0;
    while (x >> (all + 1))
        all++;
    while (n < 32 && sd_plain(&w->c, t + n, n < all))
        n++;
    u64 r = 1;
    for (u32 q = n; q--;) {
        int bit = (int)(x >> q & 1);
        u32 d = n - 1 - q;
        bit = d == 0 ? sd_plain(&w->c, t + 33 + n, bit) : sd_bit(&w->c, bit, 32768);
        r = r << 1 | (u64)bit;
    }
    return (u32)(r - 1);
}
static u32 zigzag(i64 v) { return v < 0 ? ((u32)-v << 1) - 1 : (u32)v << 1; }
static i64 zagzig(u32 z) { return z & 1 ? -((i64)(z >> 1) + 1) : (i64)(z >> 1); }

/* --- the script ------------------------------------------------------------------------------------------------------ */
static u32 field_of(const sd_walk *w, u32 k, u32 which)
{
    const u8 *p = w->match_mem + (size_t)k * 3 * w->width + which * w->width;
    return w->width == 4 ? sd_l32(p) : sd_l16(p) | (u32)p[2] << 16;
}
static sd_match match_of(const sd_walk *w, u32 k)
{
    sd_match m = {field_of(w, k, 0), field_of(w, k, 1), field_of(w, k, 2), 1};
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
static u32 order(const sd_walk *w, u32 k) { return sd_l16(order_at(w, k)); }
static void set_order(sd_walk *w, u32 k, u32 v) { order_at(w, k)[0] = (u8)v, order_at(w, k)[1] = (u8)(v >> 8); }
static int later(const sd_walk *w, u32 a, u32 b)
{
    u32 x = field_of(w, a, 1), y = field_of(w, b, 1);
    return x > y || (x == y && a > b);
}
/* Heap sort of the matches by place in the base. */
static void sift(sd_walk *w, u32 k, u32 n)
{
    for (u32 c; (c = 2 * k + 1) < n; k = c) {
        if (c + 1 < n && later(w, order(w, c + 1), order(w, c)))
            c++;
        u32 a = order(w, k), b = order(w, c);
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
        u32 a = order(w, 0);
        set_order(w, 0, order(w, k));
        set_order(w, k, a);
        sift(w, 0, k);
    }
}
/* One match, told from where the last one ended (at, from); it ends before `end` in the target. */
static int code_match(sd_walk *w, int kind, u32 at, u32 from, u32 end, sd_match *m)
{
    u32 gap = number(w, kind, m->at - at), len = number(w, kind + 1, m->len);
    u32 jump = number(w, kind + 2, zigzag((i64)m->from - from));
    i64 start = (i64)from + zagzig(jump);
    if (w->c.failed || start < 0 || start > w->base_size || len > w->base_size - (u32)start || gap > end - at ||
        len > end - at - gap)
        return w->c.failed = w->c.failed ? w->c.failed : SD_BAD_PATCH;
    m->at = at + gap;
    m->from = (u32)start;
    m->len = len;
    return SD_OK;
}
static int script(sd_walk *w)
{
    u32 at = 0, from = 0;
    const sd_match *g = w->given;
    for (u32 k = 0; k < w->matches; k++) {
        sd_match m = {0, 0, 0, 0};
        if (g) {
            while (!g->kept)
                g++;
            m = *g++;
        }
        if (code_match(w, 0, at, from, w->target_size, &m))
            return w->c.failed;
        keep_match(w, k, &m);
        at = m.at + m.len;
        from = m.from + m.len;
    }
    sort_matches(w);
    return SD_OK;
}
/* --- addresses --------------------------------------------------------------------------------------------------- */
i64 sd_offset(const sd_segment *s, u32 n, u64 va)
{
    for (u32 k = 0; k < n; k++)
        if (va - s[k].va < s[k].len)
            return (i64)(va - s[k].va) + s[k].off;
    return -1;
}
u64 sd_address(const sd_segment *s, u32 n, u32 off)
{
    for (u32 k = 0; k < n; k++)
        if (off - s[k].off < s[k].len)
            return s[k].va + (off - s[k].off);
    return n ? s[0].va + off - s[0].off : off;
}
int sd_esp_segments(const u8 *p, u32 size, sd_segment *out, u32 *n)
{
    u32 at = 24;
    *n = 0;
    if (size < 32 || p[0] != 0xE9 || !p[1] || p[1] > SD_MAX_SEGMENTS)
        return 0;
    for (u32 k = 0; k < p[1]; k++) {
        if (at + 8 > size)
            return 0;
        u32 va = sd_l32(p + at), len = sd_l32(p + at + 4);
        if (len > size - at - 8)
            return 0;
        out[k].off = at + 8;
        out[k].len = len;
        out[k].va = va;
        at += 8 + len;
        *n = k + 1;
    }
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
        if (field_of(w, order(w, mid), 1) <= t)
            lo = mid + 1;
        else
            hi = mid;
    }
    u32 best = NONE, best_len = 0, near = NONE, gap = NONE;
    for (u32 k = lo, tries = 0; k-- && tries < 8; tries++) {
        u32 id = order(w, k), from = field_of(w, id, 1), len = field_of(w, id, 2);
        if (t - from < len) {
            if (len > best_len)
                best = id, best_len = len;
        } else if (t - from - len < gap)
            near = id, gap = t - from - len;
    }
    if (best == NONE) {
        if (lo < w->matches && field_of(w, order(w, lo), 1) - t < gap)
            near = order(w, lo);
        best = near;
    }
    sd_match m = match_of(w, best);
    i64 to = (i64)t - m.from + m.at;
    return to < 0 ? 0 : (u32)to;
}
static u32 key32(u64 t) { return (u32)t ^ (u32)(t >> 32) * 0x9E3779B1u; }
static sd_link *link_at(const sd_walk *w, u32 key, u32 level) { return w->links + (u64)sd_mix(key, level) * w->link_n / ((u64)1 << 32); }
static int linked(const sd_walk *w, u64 t, u32 shift, u64 *to)
{
    u32 key = key32(t >> shift) << 2 | (shift ? shift == 4 ? 2 : 3 : 1);
    sd_link *l = link_at(w, key, shift);
    if (l->key != key)
        return 0;
    *to = t + (u64)(i64)l->delta;
    return 1;
}
static void link_put(sd_walk *w, u64 t, u32 shift, i64 delta)
{
    u32 key = key32(t >> shift) << 2 | (shift ? shift == 4 ? 2 : 3 : 1);
    sd_link *l = link_at(w, key, shift);
    l->key = key;
    l->delta = (i32)delta;
}
static int away(const sd_walk *w, u64 t)
{
    const sd_machine *m = w->machine;
    if (m->away_to)
        return t >= m->away_from && t < m->away_to;
    u64 end = 0;
    for (u32 k = 0; k < w->old_segs; k++)
        if (w->old_seg[k].va + w->old_seg[k].len > end)
            end = w->old_seg[k].va + w->old_seg[k].len;
    return t >= end && t - end < (64u << 20);
}
/* Where what was at `t` is now: as learned, as the matches say, or as its neighbours outside the image went. */
static int moved(const sd_walk *w, u64 t, int anywhere, u64 *to)
{
    i64 off = sd_offset(w->old_seg, w->old_segs, t);
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
typedef struct {
    u8 bytes[8];
    u8 len, done, type;
    u64 old_target, target, pc;
    const sd_form *form;
} field;

static void find_field(const sd_walk *w, u32 j, u32 i, u32 left, int unit, field *f)
{
    const sd_machine *m = w->machine;
    f->len = f->done = f->type = 0;
    if (!m->count)
        return;
    u64 pc = sd_address(w->old_seg, w->old_segs, j);
    if (pc & (m->step - 1u))
        return;
    sd_view v = {w->base + j, j, w->base_size - j, pc};
    for (u32 k = 0; k < m->count; k++) {
        const sd_form *form = m->forms + k;
        int lift;
        u64 to;
        if ((form->flags & SD_UNIT && !unit) || pc & (form->align - 1u) || form->len > left || form->len > v.fwd ||
            (form->flags & SD_DATA && pc >= m->code_from && pc < m->code_to))
            continue;
        u64 word = sd_word(v.p, form->len);
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
/* The field stands in the image: what it really points at. */
static void learn_field(sd_walk *w, const field *f)
{
    u64 t;
    u32 back = w->at - f->len < SD_TAIL - 8 ? w->at - f->len : SD_TAIL - 8;
    sd_view v = {w->out + w->out_n - f->len, back, f->len, f->pc};
    u64 word = sd_word(v.p, f->len);
    if (f->form->flags & SD_HIGH || (word & f->form->mask) != f->form->value || !f->form->get(&v, word, &t) ||
        t == f->target)
        return;
    i64 d = (i64)(t - f->old_target);
    if (d > (1 << 24) || d < -(1 << 24))
        return;
    link_put(w, f->old_target, 0, d);
    if (sd_offset(w->old_seg, w->old_segs, f->old_target) < 0) {
        link_put(w, f->old_target, 4, d);
        link_put(w, f->old_target, 10, d);
    }
}

/* --- output ---------------------------------------------------------------------------------------------------------- */
static void flush(sd_walk *w)
{
    u32 n = w->out_n - SD_TAIL;
    w->crc = sd_crc32(w->crc, w->out + SD_TAIL, n);
    if (n && w->c.io && w->c.io->write && w->c.io->write(w->c.io->user, w->out + SD_TAIL, n) && !w->c.failed)
        w->c.failed = SD_WRITE;
    memmove(w->out, w->out + n, SD_TAIL);
    w->out_n = SD_TAIL;
    if (w->progress && w->at - w->said >= 1u << 16 && (w->said = w->at) && w->progress(w->user, w->at, w->target_size))
        w->c.failed = SD_CANCELLED;
}
static u32 tail32(const sd_walk *w) { return sd_l32(w->out + w->out_n - 4); } /* the last byte on top */
static void emit(sd_walk *w, u8 byte)
{
    if (SD_LARGE(w))
        w->history[w->at & (w->history_n - 1)] = byte;
    w->at++;
    if (w->out_n == SD_TAIL + SD_OUT)
        flush(w);
    w->out[w->out_n++] = byte;
}
static void emit_many(sd_walk *w, const u8 *from, u32 n)
{
    while (n) {
        u32 room = SD_TAIL + SD_OUT - w->out_n, part = n < room ? n : room;
        if (!part) {
            flush(w);
            continue;
        }
        memcpy(w->out + w->out_n, from, part);
        w->out_n += part;
        for (u32 done = 0; SD_LARGE(w) && done < part;) {
            u32 at = (w->at + done) & (w->history_n - 1), run = w->history_n - at;
            run = run < part - done ? run : part - done;
            memcpy(w->history + at, from + done, run);
            done += run;
        }
        w->at += part;
        from += part;
        n -= part;
    }
}
static u8 wanted(const sd_walk *w) { return w->target ? w->target[w->at] : 0; }

/* --- match model: where did the last five bytes stand before? -------------------------------------------------------- */
static u32 seen_key(const sd_walk *w, const u8 *p5) { return (u32)((u64)sd_mix(sd_l32(p5), p5[4]) * w->seen_n >> 32); }
static int seen_byte(const sd_walk *w, u64 at, u8 *byte)
{
    if (at < w->base_size)
        *byte = w->base[at];
    else {
        u64 k = at - w->base_size;
        if (k >= w->at || w->at - k >= w->history_n)
            return 0;
        *byte = w->history[k & (w->history_n - 1)];
    }
    return 1;
}
static void seen_put(sd_walk *w)
{
    if (SD_LARGE(w) && w->at >= 5 && w->at < 0xFFFFFF00u - w->base_size)
        w->seen[seen_key(w, w->out + w->out_n - 5)] = w->base_size + w->at;
}

/* --- bytes that are new ------------------------------------------------------------------------------------------------ */
typedef struct {
    u64 at;
    u32 len;
} chase;

static u8 extra_byte(sd_walk *w, chase *m, u8 before, u8 after)
{
    u8 guess = 0;
    if (SD_LARGE(w) && !m->len && w->at >= 5) {
        m->at = w->seen[seen_key(w, w->out + w->out_n - 5)];
        if (m->at != NONE) {
            u8 b;
            while (m->len < 32 && m->len < m->at && m->len < w->at && seen_byte(w, m->at - 1 - m->len, &b) &&
                   b == w->out[w->out_n - 1 - m->len])
                m->len++;
            if (m->len < 4)
                m->len = 0;
        }
    }
    if (m->len && !seen_byte(w, m->at, &guess))
        m->len = 0;
    u32 o = tail32(w), c1 = o >> 24, c2 = o >> 16, c3 = o >> 8, o5 = w->out[w->out_n - 5], o6 = w->out[w->out_n - 6];
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
    u8 sym = wanted(w);
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
static void prime(sd_walk *w)
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
        u32 c0 = 1;
        for (int b = 7; b >= 0; b--) {
            int bit = p[q] >> b & 1;
            for (u32 k = 0; k <= inputs; k++)
                sd_teach(&w->m, sd_mix(cx[k], c0 * 32 + place[k] + 16), bit);
            c0 = c0 << 1 | (u32)bit;
        }
    }
    for (u32 q = from < 5 ? 5 : from; SD_LARGE(w) && q < w->base_size; q++)
        w->seen[seen_key(w, p + q - 5)] = q;
}

/* --- bytes that a match covers ------------------------------------------------------------------------------------------ */
static u8 changed_byte(sd_walk *w, u32 j, u8 old, u8 first, u32 type, u32 place, u32 f4, u32 o4, u32 al)
{
    u32 o = tail32(w), c1 = o >> 24, c2 = o >> 16 & 255, ph = j & 3;
    u8 drift = (u8)(first + w->deltas[ph]), d1 = (u8)(j ? (u8)c1 - w->base[j - 1] : 0);
    u32 cx[8] = {old | (u32)first << 8 | 0x1000000u,
                 drift | 0x2000000u | type << 8 | place << 16,
                 c1 | (u32)first << 8 | 0x3000000u,
                 c1 | c2 << 8 | 0x4000000u,
                 d1 | (u32)first << 8 | type << 16 | 0x5000000u,
                 sd_mix(f4, 0x99 + type),
                 sd_mix(al, ph),
                 sd_mix(o4, 0x77)};
    int inputs = SD_LARGE(w) ? 8 : 6;
    u32 c0 = 1, sets = w->m.sets, quarter = sets / 4;
    u8 sym = wanted(w);
    for (int b = 7; b >= 0; b--) {
        for (int k = 0; k < inputs; k++)
            sd_add(&w->m, sd_mix(cx[k], c0 * 32 + (u32)k));
        int bit = sd_mixed(&w->m, &w->c, sym >> b & 1, sets / 2 + (7 - (u32)b) % quarter,
                           sets / 2 + (type * 3 + 8) % quarter, 0);
        c0 = c0 << 1 | (u32)bit;
    }
    return (u8)c0;
}

static void step_unit(sd_walk *w, u32 j)
{
    while (w->unit < j && w->machine->code_to)
        w->unit += sd_unit_length(w->h.arch, w->base + w->unit, sd_address(w->old_seg, w->old_segs, w->unit),
                                  w->base_size - w->unit);
}
/* A page that did not change at all: told by one bit, so that large images cost little time. */
static int same_page(sd_walk *w, u32 j)
{
    int same = sd_plain(&w->c, w->pages + (w->page_hist & 3), w->target && !memcmp(w->base + j, w->target + w->at, PAGE));
    w->page_hist = w->page_hist << 1 | (u32)same;
    return same;
}
/* What the next bytes are when every prediction holds: a block, and the field that reaches over its end. */
static u32 guess_block(sd_walk *w, u32 j, u32 left, u8 *out)
{
    u32 n = 0;
    field f;
    while (n < BLOCK && n < left) {
        step_unit(w, j + n);
        find_field(w, j + n, w->at + n, left - n, w->unit == j + n, &f);
        if (f.len)
            memcpy(out + n, f.bytes, f.len);
        else
            out[n] = w->base[j + n];
        n += f.len ? f.len : 1;
    }
    return n;
}

static void covered(sd_walk *w)
{
    u32 j = w->now.from, end = w->now.at + w->now.len, sets = w->m.sets;
    field f = {{0}, 0, 0, 0, 0, 0, 0, 0};
    sd_made *made = w->made;
    w->unit = j;
    if (w->machine->forms && w->machine->code_to && w->h.arch == SD_XTENSA) /* streams of instructions find themselves */
        w->unit = j > 64 ? j - 64 : 0;
    u32 block = w->at;
    while (w->at < end && !w->c.failed) {
        u32 i = w->at;
        if (w->h.blocks && i >= block && f.done >= f.len) {
            u8 guess[BLOCK + 8];
            if (SD_LARGE(w) && end - i >= PAGE && same_page(w, j)) {
                emit_many(w, w->base + j, PAGE);
                j += PAGE;
                continue;
            }
            u32 unit = w->unit, n = guess_block(w, j, end - i, guess);
            block = i + n;
            if (sd_plain(&w->c, w->blocks + (w->block_hist & 255), w->target && !memcmp(guess, w->target + i, n))) {
                w->block_hist = w->block_hist << 1 | 1;
                for (u32 k = 0; k < n; k++) {
                    emit(w, guess[k]);
                    seen_put(w);
                }
                w->hist = 0;
                j += n;
                continue;
            }
            w->block_hist <<= 1;
            w->unit = unit;
        }
        u8 old = w->base[j], first = old, sym = wanted(w);
        step_unit(w, j);
        if (f.done >= f.len)
            find_field(w, j, i, end - i, w->unit == j, &f);
        u32 type = 0, place = 0;
        if (f.done < f.len)
            first = f.bytes[f.done], type = f.type, place = f.done;
        u8 near[12]; /* base[j-4 .. j+7] */
        for (u32 k = 0; k < 12; k++)
            near[k] = j + k >= 4 && j + k - 4 < w->base_size ? w->base[j + k - 4] : 0;
        u32 o4 = sd_l32(near + 1), f4 = sd_l32(near + 4), ph = j & 3, al = sd_l32(near + 4 - ph);
        u32 o = tail32(w), c1 = o >> 24, c2 = o >> 16 & 255;
        /* what these bytes became the last time */
        u32 hx = sd_mix(f4, near[3] | ph << 8 | type << 12);
        sd_pair *pair = w->pairs + ((u64)hx * w->pair_n >> 32);
        int known = pair->count && pair->check == (u16)hx;
        u8 again = known ? pair->value : first, sure = known ? pair->count > 3 ? 3 : pair->count : 0;
        u8 guess = sure > 1 ? again : first;
        u32 dist = i - w->last_miss, dq = dist < 16 ? dist : dist < 32 ? 16 : dist < 64 ? 17 : dist < 256 ? 18 : dist < 1024 ? 19 : 20;
        u32 agree = (u32)(first == old) | (u32)(again == first) << 1 | (u32)(again == old) << 2;
        u32 ctx = type | agree << 6;
        sd_mixer *m = &w->m;
        sd_add(m, sd_mix((w->hist & 0xFF) | 0x10000, ctx));
        sd_add(m, sd_mix(dq | ph << 8 | 0x20000, ctx));
        sd_add(m, sd_mix(f4, 0x30000 | ph));
        sd_add(m, sd_mix(o4, 0x40000u | sure));
        sd_add(m, sd_mix(al ^ ph << 30, 0x50000 | type));
        sd_add(m, sd_mix((type << 8 | w->field_hits[type]) << 4 | place, 0x60000 | agree | (u32)sure << 3));
        sd_add(m, sd_mix(old | c1 << 8 | (w->hist & 3) << 16, 0x70000 | type));
        sd_add(m, sd_mix(w->hist & 0xFFFF, 0x80000 | (u32)(guess != old) << 4 | type << 5));
        sd_add(m, sd_mix(guess | c1 << 8 | c2 << 16, 0x90000));
        u32 half = sets / 2;
        int hit = sd_mixed(m, &w->c, sym == guess, ((type * 8 + agree) * 4 + sure) % half, (dq * 3 + (w->hist & 3)) % half,
                           w->size->lazy);
        if (hit)
            sym = guess;
        else {
            u8 second = guess;
            if (guess != first)
                second = first;
            else if (guess != old)
                second = old;
            else if (known)
                second = again;
            int hit2 = 0;
            if (second != guess) {
                sd_add(m, sd_mix(type << 4 | place << 10 | agree << 14, 0xA0000));
                sd_add(m, sd_mix(f4, 0xB0000 | agree));
                sd_add(m, sd_mix(w->hist & 0xFF, 0xC0000 | agree));
                hit2 = sd_mixed(m, &w->c, sym == second, sets / 2 + agree % (sets / 4), sets / 2 + 8 % (sets / 4), 0);
            }
            sym = hit2 ? second : changed_byte(w, j, old, first, type, place, f4, o4, al);
            w->deltas[ph] = (u8)(sym - first);
            if (made)
                made->missed++;
        }
        if (known) {
            if (pair->value == sym)
                pair->count = pair->count < 255 ? pair->count + 1 : 255;
            else if (pair->count > 1)
                pair->count = 1;
            else
                pair->value = sym;
        } else if (sym != first) {
            pair->check = (u16)hx;
            pair->value = sym;
            pair->count = 1;
        }
        if (type)
            w->field_hits[type] = (u8)((w->field_hits[type] << 1 | (sym == first)) & 7);
        w->hist = w->hist << 1 | (u32)(sym != old);
        if (sym != guess)
            w->last_miss = i;
        emit(w, sym);
        seen_put(w);
        j++;
        if (f.done < f.len && ++f.done == f.len) {
            if (made) {
                u32 same = !memcmp(f.bytes, w->base + j - f.len, f.len);
                made->fields++;
                made->fields_moved += !same;
                made->fields_right += !same && !memcmp(f.bytes, w->out + w->out_n - f.len, f.len);
            }
            learn_field(w, &f);
        }
    }
}
static void extra(sd_walk *w, u32 end, u32 old_before, i64 old_shift)
{
    chase m = {0, 0};
    while (w->at < end && !w->c.failed) {
        i64 a = (i64)w->at + old_shift;
        u8 before = old_before < w->base_size ? w->base[old_before] : 0;
        u8 after = a >= 0 && a < w->base_size ? w->base[a] : 0;
        u8 sym = extra_byte(w, &m, before, after);
        emit(w, sym);
        seen_put(w);
        old_before++;
        w->hist = w->hist << 1 | 1;
    }
}

/* --- the walk ---------------------------------------------------------------------------------------------------------------- */
static void code_segments(sd_walk *w)
{
    u32 parsed = (w->h.arch == SD_XTENSA || w->h.arch == SD_RISCV) && sd_esp_segments(w->base, w->base_size, w->old_seg, &w->old_segs);
    if (!parsed) {
        w->old_segs = number(w, 3, w->old_segs);
        if (w->old_segs > SD_MAX_SEGMENTS) {
            w->c.failed = SD_BAD_PATCH;
            return;
        }
        for (u32 k = 0; k < w->old_segs; k++) {
            sd_segment *s = w->old_seg + k;
            s->off = number(w, 4, s->off);
            s->len = number(w, 4, s->len);
            u32 high = number(w, 5, (u32)(s->va >> 32));
            s->va = (u64)high << 32 | number(w, 5, (u32)s->va);
        }
    }
    w->new_segs = number(w, 3, w->new_segs);
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
        s->off = off + (u32)zagzig(number(w, 6, zigzag((i32)(s->off - off))));
        s->len = len + (u32)zagzig(number(w, 6, zigzag((i32)(s->len - len))));
        s->va = va + (u64)zagzig(number(w, 6, zigzag((i32)(s->va - va))));
    }
}

static void one_match(sd_walk *w, const sd_match *m, u32 *from)
{
    u32 mark = (u32)w->c.length;
    extra(w, m->at, *from, (i64)m->from - m->at);
    if (w->made)
        w->made->cost_extra += (u32)w->c.length - mark;
    mark = (u32)w->c.length;
    w->now = *m;
    covered(w);
    if (w->made)
        w->made->cost_covered += (u32)w->c.length - mark, w->made->covered += m->len;
    *from = m->from + m->len;
}
/* What lies before the next kept match: matches too small to be worth the decoder's memory. */
static void small_matches(sd_walk *w, u32 end, u32 *from)
{
    u32 n = 0;
    if (w->given)
        while (w->given[n].at < end && !w->given[n].kept)
            n++;
    for (n = number(w, 7, n); n && !w->c.failed; n--) {
        sd_match m = {w->at, *from, 0, 0};
        if (w->given)
            m = *w->given++;
        if (!code_match(w, 8, w->at, *from, end, &m))
            one_match(w, &m, from);
    }
}

int sd_run(sd_walk *w, const sd_match *given)
{
    u32 from = 0;
    w->given = given;
    code_segments(w);
    int bad = w->c.failed ? w->c.failed : script(w);
    if (bad)
        return bad;
    if (w->made)
        w->made->cost_script = (u32)w->c.length;
    prime(w);
    for (u32 k = 0; k <= w->matches && !w->c.failed; k++) {
        sd_match m = {w->target_size, w->base_size, 0, 1};
        if (k < w->matches)
            m = match_of(w, k);
        small_matches(w, m.at, &from);
        one_match(w, &m, &from);
        if (w->given && k < w->matches)
            w->given++;
    }
    flush(w);
    sd_coder_drain(&w->c);
    return w->c.failed ? w->c.failed : w->crc == w->h.target_crc ? SD_OK : SD_RESULT;
}

int sd_apply(const u8 *base, u32 base_size, const sd_io *io, void *memory, size_t memory_size, u32 max_target)
{
    u8 head[HEADER];
    sd_header h;
    size_t n = 0, more;
    while (n < HEADER && (more = io->read(io->user, head + n, HEADER - n)) && more <= HEADER - n)
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
