/* Mutated patches against the decoder, under ASan and UBSan: `fuzz BASE PATCH COUNT SEED`.
 *
 * Every input is applied with exactly the memory its header computes, on the heap, so that a step beyond it is
 * seen. Most of the mutants get a header checksum that fits, or they would all die at the door; the first input is
 * the patch as it is, which must come out right. Prints how many were tried, refused, and came out right, a sum over
 * what these made, by which two decoders are compared, and how many had their body read; anything else ends the
 * program. */
#include "decoder/core.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const u8 *p;
    u32 left;
    u64 written;
    u32 most, sum;
} door;

static size_t give(void *user, u8 *to, size_t most)
{
    door *d = user;
    size_t n = d->left < most ? d->left : most;
    if (n)
        memcpy(to, d->p, n);
    d->p += n;
    d->left -= (u32)n;
    return n;
}
static int take(void *user, const u8 *from, size_t n)
{
    door *d = user;
    d->written += n;
    d->sum = sd_crc32(d->sum, from, n);
    if (d->written > d->most || !from)
        abort(); /* more than the caller allowed */
    return 0;
}
static u8 *load(const char *path, u32 *n)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END))
        exit(2);
    *n = (u32)ftell(f);
    rewind(f);
    u8 *p = malloc(*n + 1u);
    if (!p || fread(p, 1, *n, f) != *n)
        exit(2);
    fclose(f);
    return p;
}
static u64 state;
static u32 any(u32 below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below ? (u32)((state >> 16) % below) : 0;
}

int main(int argc, char **argv)
{
    u32 on, pn, refused = 0, right = 0, sum = 0, read = 0;
    if (argc < 5)
        return 2;
    u8 *loaded = load(argv[1], &on), *good = load(argv[2], &pn), *bad = malloc(pn + 64u);
    u8 *base = malloc(on), *memory = 0; /* no byte more than it has */
    memcpy(base, loaded, on);
    u32 count = (u32)atol(argv[3]), room = 0, header;
    state = (u64)atol(argv[4]) * 0x9E3779B97F4A7C15u + 1;
    sd_header h;
    if (sd_read_header(good, pn, &h))
        return 2;
    header = h.length;
    for (u32 k = 0; k < count; k++) {
        u32 n = pn;
        memcpy(bad, good, pn);
        for (u32 changes = k ? 1 + any(4) : 0; changes--;) {
            u32 at = any(3) ? header + any(n > header ? n - header : 1) : any(header);
            if (at >= n)
                continue;
            switch (any(5)) {
            case 0: bad[at] ^= (u8)(1u << any(8)); break;
            case 1: bad[at] = (u8)any(256); break;
            case 2: n = at; break;
            case 3: for (u32 q = at; q < n && q < at + any(16); q++) bad[q] = (u8)any(256); break;
            default: bad[at] = any(2) ? 0xFF : 0; break;
            }
        }
        if (n >= header && any(8)) {
            if (any(4)) { /* keep the base's name, so that the body is read */
                memcpy(bad + 10, good + 10, 4);
                memcpy(bad + 22, good + 22, 4);
            }
            u32 crc = sd_crc32(0, bad, header - 4);
            for (u32 q = 0; q < 4; q++)
                bad[header - 4 + q] = (u8)(crc >> 8 * q);
        }
        door d = {bad, n, 0, h.target_size + 100, k};
        sd_io io = {give, take, &d, 0};
        sd_header g;
        u32 most = sd_read_header(bad, n, &g) ? 64 : g.memory;
        if (most > 16u << 20)
            abort();
        if (most != room) { /* else what the last one left in it: a decoder clears what it counts on */
            free(memory);
            memory = malloc(room = most);
        }
        if (!memory)
            return 2;
        int e = sd_apply(base, on, &io, memory, most, d.most);
        if (!k && e)
            return 3; /* the patch itself is unsound: its mutants would say nothing */
        read += n - d.left > header;
        if (e)
            refused++;
        else
            right++, sum = sum * 31 + d.sum;
    }
    printf("%u %u %u %08x %u\n", count, refused, right, (unsigned)sum, read);
    free(loaded);
    free(memory);
    free(base);
    free(good);
    free(bad);
    return 0;
}
