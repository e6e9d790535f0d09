/* Mutated descriptions of types against what opens and closes them, under ASan and UBSan: `fuzz_btf FILE COUNT SEED`.
 *
 * Each is tried as it is and opened, on the heap, so that a step beyond it is seen. Prints how many were tried, and how many
 * were refused; one that opens and does not close again to the same bytes, though it was closed before, is only counted:
 * the encoder tries that for every block. */
#include "btf.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;
static uint32_t any(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below ? (uint32_t)((state >> 16) % below) : 0;
}
static void mutate(uint8_t *p, uint32_t n)
{
    for (uint32_t changes = 1 + any(4); changes--;) {
        uint32_t at = (any(4) ? any(n) : any(24)) % n, from = any(n), run = 1 + any(any(4) ? 16 : 4096);
        uint32_t most = n - (at > from ? at : from);
        run = run < most ? run : most;
        switch (any(4)) {
        case 0: p[at] ^= (uint8_t)(1u << any(8)); break;
        case 1: p[at] = (uint8_t)any(256); break;
        case 2: memset(p + at, any(2) ? 0xFF : 0, run); break;
        default: memmove(p + at, p + from, run); break;
        }
    }
}

int main(int argc, char **argv)
{
    FILE *f = argc < 4 ? 0 : fopen(argv[1], "rb");
    if (!f || fseek(f, 0, SEEK_END))
        return 2;
    uint32_t n = (uint32_t)ftell(f), count = (uint32_t)atol(argv[2]), refused = 0, lost = 0;
    uint8_t *good[2] = {malloc(n), malloc(n)};
    rewind(f);
    if (!good[0] || !good[1] || fread(good[0], 1, n, f) != n)
        return 2;
    fclose(f);
    memcpy(good[1], good[0], n);
    if (sd_btf_open(good[1], n))
        return 2;
    state = (uint64_t)atol(argv[3]) * 0x9E3779B97F4A7C15u + 1;
    for (uint32_t k = 0; k < count; k++) {
        uint32_t cut = any(8) ? n : any(n) + 1;
        uint8_t *p = malloc(cut), *before = malloc(cut);
        if (!p || !before)
            return 2;
        memcpy(p, good[k & 1], cut);
        mutate(p, cut);
        memcpy(before, p, cut);
        if (k & 1)
            refused += sd_btf_close(p, cut) != 0;
        else if (sd_btf_open(p, cut))
            refused++;
        else
            lost += sd_btf_close(p, cut) || memcmp(p, before, cut);
        free(p);
        free(before);
    }
    printf("%u %u %u\n", count, refused, lost);
    free(good[0]);
    free(good[1]);
    return 0;
}
