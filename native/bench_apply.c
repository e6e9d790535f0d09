/* The decoder and nothing else, for counting instructions: `bench_apply BASE PATCH`. */
#include "decoder/core.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    FILE *patch;
    size_t written;
} door;
static size_t give(void *user, u8 *to, size_t most) { return fread(to, 1, most, ((door *)user)->patch); }
static int take(void *user, const u8 *from, size_t n)
{
    (void)from;
    ((door *)user)->written += n;
    return 0;
}

int main(int argc, char **argv)
{
    FILE *f = argc > 2 ? fopen(argv[1], "rb") : 0;
    door d = {argc > 2 ? fopen(argv[2], "rb") : 0, 0};
    if (!f || !d.patch || fseek(f, 0, SEEK_END))
        return 2;
    u32 n = (u32)ftell(f);
    rewind(f);
    u8 *base = malloc(n + 1u), *memory = malloc(64u << 10);
    if (!base || !memory || fread(base, 1, n, f) != n)
        return 2;
    sd_io io = {give, take, &d, 0};
    int bad = sd_apply(base, n, &io, memory, 64u << 10, UINT32_MAX);
    fclose(f);
    fclose(d.patch);
    free(base);
    free(memory);
    return bad;
}
