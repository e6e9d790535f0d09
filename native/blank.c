/* Images without their addresses, for comparing: fields are blank, and words that point somewhere are named by what
 * stands there. */
#include "decoder/core.h"
#include <stdlib.h>

enum { NAMED = 8 }; /* bytes that give a name */

/* A word that points into the image: nothing but where it points tells it from others. */
typedef struct {
    u32 at, len, to;
} pointer;
typedef struct {
    pointer *p;
    u32 n, room;
} pointers;
static int add_pointer(pointers *l, u32 at, u32 len, u32 to)
{
    if (l->n == l->room) {
        u32 room = l->room * 2 + 4096;
        pointer *more = realloc(l->p, room * sizeof *more);
        if (!more)
            return 0;
        l->p = more;
        l->room = room;
    }
    l->p[l->n++] = (pointer){at, len, to};
    return 1;
}
/* Named by what they point at, as it is when fields are blank: so that tables of them match entry by entry, whatever
 * was put in between. */
static void name_pointers(const pointers *l, u8 *out, u32 size)
{
    for (u32 k = 0; k < l->n; k++) {
        const u8 *p = out + l->p[k].to;
        u32 h = size - l->p[k].to < NAMED ? 0 : 0x5EED;
        for (u32 b = 0; h && b < NAMED; b += 4)
            h = sd_mix(h, sd_l32(p + b));
        l->p[k].to = h;
    }
    for (u32 k = 0; k < l->n; k++)
        for (u32 b = 0; b < l->p[k].len; b++)
            out[l->p[k].at + b] = (u8)(l->p[k].to >> 8 * (b & 3));
}
/* Whether a word is one of a table of offsets that ascend, and not what it looks like. */
static int ascends(const u8 *p, u32 before, u32 after, u32 size)
{
    u32 a = before >= 4 ? sd_l32(p - 4) : 0, b = sd_l32(p), c = after >= 8 ? sd_l32(p + 4) : b;
    return b < size && b - a < 1u << 18 && c - b < 1u << 18;
}

/* The image with its fields blank; and `named`, with its pointers named besides. 0: no memory. */
int sd_blank(int arch, const u8 *p, u32 size, const sd_segment *s, u32 n, u8 *out, u8 *named)
{
    const sd_machine *m = &sd_machines[arch];
    pointers found = {0, 0, 0};
    memcpy(out, p, size);
    u32 unit = 0;
    int room = 1;
    for (u32 k = 0; k + 8 <= size && m->count && room;) {
        u64 pc = sd_address(s, n, k);
        u32 jump = 1;
        int code = pc >= m->code_from && pc < m->code_to;
        if (code)
            while (unit < k)
                unit += sd_unit_length(arch, p + unit, sd_address(s, n, unit), size - unit);
        if (!(pc & (m->step - 1u)))
            for (u32 a = 0; a < m->count; a++) {
                const sd_form *f = m->forms + a;
                sd_view v = {p + k, k, size - k, pc};
                u64 t, w = sd_word(v.p, f->len);
                if ((f->flags & SD_UNIT && (unit != k || !code)) || pc & (f->align - 1u) || (w & f->mask) != f->value ||
                    (f->flags & SD_DATA && code) || !f->get(&v, w, &t) ||
                    (sd_offset(s, n, t) < 0 && !(f->flags & SD_ANYWHERE)))
                    continue;
                for (u32 b = 0; b < f->len; b++)
                    out[k + b] = (u8)(p[k + b] & ~(f->field >> 8 * b));
                jump = f->len;
                i64 to = sd_offset(s, n, t);
                if (f->len == 4 && ascends(p + k, k, size - k, size))
                    to = (i64)w;
                if (!(f->mask | f->value) && !(f->flags & SD_DATA) && to >= 0)
                    room = add_pointer(&found, k, f->len, (u32)to);
                break;
            }
        k += jump;
    }
    memcpy(named, out, size);
    name_pointers(&found, named, size);
    free(found.p);
    return room;
}
