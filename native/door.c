/* The hosts' door: memory is found here, pieces are large enough for a slow receiver. */
#include "decoder/core.h"
#include <stdlib.h>

enum { PIECE = 1 << 20 };
typedef struct {
    const u8 *patch;
    u64 left;
    int (*write)(void *, const u8 *, size_t);
    void *user;
    u8 *piece;
    u32 have;
} door;

static size_t read_patch(void *user, u8 *to, size_t most)
{
    door *d = user;
    size_t n = d->left < most ? (size_t)d->left : most;
    if (n)
        memcpy(to, d->patch, n);
    d->patch += n;
    d->left -= n;
    return n;
}
static int pass_on(door *d)
{
    int bad = d->have && d->write(d->user, d->piece, d->have);
    d->have = 0;
    return bad;
}
static int write_image(void *user, const u8 *from, size_t n)
{
    door *d = user;
    if (d->have + n > PIECE && pass_on(d))
        return 1;
    memcpy(d->piece + d->have, from, n);
    d->have += (u32)n;
    return 0;
}

int sd_door_apply(const u8 *base, uint64_t base_size, const u8 *patch, uint64_t length, uint64_t max_target,
                  uint64_t most_memory, int base_checked, int (*write)(void *, const u8 *, size_t), void *user)
{
    sd_header h;
    int bad = sd_read_header(patch, (size_t)length, &h);
    if (bad)
        return bad;
    if (h.memory > most_memory)
        return SD_MEMORY;
    if (base_size != h.base_size)
        return SD_BASE;
    door d = {patch, length, write, user, malloc(PIECE), 0};
    void *memory = malloc(h.memory);
    bad = SD_MEMORY;
    if (d.piece && memory) {
        sd_io io = {read_patch, write_image, &d, base_checked};
        bad = sd_apply(base, (u32)base_size, &io, memory, h.memory, max_target > UINT32_MAX ? UINT32_MAX : (u32)max_target);
        if (!bad && pass_on(&d))
            bad = SD_WRITE;
    }
    free(memory);
    free(d.piece);
    return bad;
}
