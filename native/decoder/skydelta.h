/* Skylift deltas: patches that know how a linker moves addresses.
 *
 * The decoder (this folder) allocates nothing, calls no library but memcpy and memset, and
 * holds to the memory it is given. The encoder (native/) is for hosts.
 * The format is docs/reference/delta-format.md. */
#ifndef SKYDELTA_H
#define SKYDELTA_H
#include <stddef.h>
#include <stdint.h>

enum sd_profile { SD_MCU_16K = 1, SD_MCU_64K = 2, SD_LINUX_16M = 3 };
enum sd_arch { SD_PLAIN, SD_THUMB, SD_ARM, SD_A64, SD_X86, SD_XTENSA, SD_RISCV, SD_MIXED, SD_ARCHES };

enum sd_error {
    SD_OK = 0,
    SD_BAD_PATCH = 1,   /* no patch of ours, or damaged */
    SD_CUT = 2,         /* the patch ends before the image does */
    SD_BASE = 3,        /* another base than the one it was made from */
    SD_MEMORY = 4,      /* it needs more memory than it was given */
    SD_LIMIT = 5,       /* it makes more bytes than allowed */
    SD_RESULT = 6,      /* what came out is not the image that was promised */
    SD_WRITE = 7,       /* the receiver of the image said no */
    SD_CANCELLED = 8,   /* progress said stop (encoder) */
    SD_SIZE = 9,        /* an image too large for the format (encoder) */
    SD_LEFT_OUT = 10    /* a profile or machine that this decoder was built without */
};

#define SD_MAX_SEGMENTS 24
#define SD_HEADER_MAX 128
#define SD_DIGEST 16

typedef struct {
    uint32_t off, len;
    uint64_t va;
} sd_segment;

typedef struct {
    uint8_t profile, arch, blocks; /* blocks: runs where every prediction holds are told by one bit */
    uint32_t base_size, target_size, matches;
    uint32_t body; /* bytes that follow the header */
    uint32_t base_crc, target_crc;
    uint32_t prime;  /* bytes at the end of the base that the literal model is taught first */
    uint32_t memory; /* bytes the decoder needs; computed, not believed */
    uint8_t base_sha256[SD_DIGEST], target_sha256[SD_DIGEST]; /* the first half of each digest */
    uint32_t length; /* of the header itself */
} sd_header;

typedef struct {
    size_t (*read)(void *user, uint8_t *to, size_t most);         /* patch bytes; 0 at the end */
    int (*write)(void *user, const uint8_t *from, size_t length); /* image bytes in order; 0 is good */
    void *user;
    int base_checked; /* 1: the caller has compared the base's digest; it is not read twice */
} sd_io;

/* Reads a header from the first bytes of a patch. */
int sd_read_header(const uint8_t *patch, size_t length, sd_header *out);
/* Writes the image; the base must be readable in one piece (memory-mapped flash, mmap). */
int sd_apply(const uint8_t *base, uint32_t base_size, const sd_io *io, void *memory, size_t memory_size,
             uint32_t max_target);
uint32_t sd_crc32(uint32_t crc, const uint8_t *data, size_t length);

/* --- hosts ---------------------------------------------------------------------------------------- */
typedef struct {
    uint8_t profile;
    int arch; /* -1: detected */
    uint8_t base_sha256[32], target_sha256[32];
    int (*progress)(void *user, uint32_t done, uint32_t all); /* not 0: stop */
    void *user;
    const sd_segment *segments[2]; /* of base and target, where the caller knows better than their bytes say */
    uint32_t segment_count[2];     /* at most SD_MAX_SEGMENTS; 0: by their bytes */
} sd_wish;

typedef struct {
    uint8_t *patch;
    size_t length;
    uint32_t matches, covered, missed, fields, fields_moved, fields_right;
    uint32_t cost_script, cost_covered, cost_extra; /* bytes */
} sd_made;

int sd_make(const uint8_t *base, uint64_t base_size, const uint8_t *target, uint64_t target_size,
            const sd_wish *wish, sd_made *made);
void sd_free(sd_made *made);
/* Runs of at least `shortest` bytes of the target that stand in the base, in the target's order, none overlapping;
 * images below 4 GiB. `wish` for its progress alone. */
typedef struct {
    uint64_t at, from, len; /* target, base, bytes */
} sd_copy;
int sd_copies(const uint8_t *base, uint64_t base_size, const uint8_t *target, uint64_t target_size, uint32_t shortest,
              const sd_wish *wish, sd_copy **out, uint32_t *count);
/* The same by a nearer look, for images below 2 GiB: runs, however short, in which most bytes agree (as bsdiff does). */
int sd_runs(const uint8_t *base, uint64_t base_size, const uint8_t *target, uint64_t target_size, const sd_wish *wish,
            sd_copy **out, uint32_t *count);
void sd_free_copies(sd_copy *copies); /* of either */
/* Applies with memory of its own (at most `most_memory`), handing the image on in pieces of up to 1 MiB. */
int sd_door_apply(const uint8_t *base, uint64_t base_size, const uint8_t *patch, uint64_t length, uint64_t max_target,
                  uint64_t most_memory, int base_checked, int (*write)(void *, const uint8_t *, size_t), void *user);
#endif
