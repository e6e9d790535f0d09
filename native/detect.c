/* Which machine an image is for, and where it is loaded: from the image alone. */
#include "core.h"
#include <stdlib.h>

static int prologue(int arch, const u8 *p)
{
    u32 w = sd_l32(p);
    switch (arch) {
    case SD_THUMB: return (w & 0xFF00) == 0xB500 || (w & 0xFFFF) == 0xE92D;
    case SD_ARM: return (w & 0xFFFF4000) == 0xE92D4000;
    case SD_A64: return (w & 0xFFC07FFF) == 0xA9807BFD || w == 0xD503233F || w == 0xD503245F || (w & 0xFF8003FF) == 0xD10003FF;
    case SD_X86: return *p == 0x55 || w == 0xFA1E0FF3 || (w & 0xFFFFFF) == 0xEC8348 || ((w & 0xF8FF) == 0x5041);
    case SD_XTENSA: return *p == 0x36 && (p[1] & 15) == 1;
    case SD_RISCV: return (w & 0xFF83) == 0x7101 || (w & 0xFF83) == 0x1101 || (w & 0x800FFFFF) == 0x80010113;
    default: return 0;
    }
}

static void count_calls(int arch, const u8 *p, u32 size, u32 *calls, u32 *hits)
{
    const sd_machine *m = &sd_machines[arch];
    u32 most = 2, step = arch == SD_XTENSA ? 1 : m->step, block = 1 << 16, jump = size > 16u << 20 ? size / 256 : block;
    *calls = *hits = 0;
    (void)most;
    for (u64 start = 0; start < size; start += jump)
        for (u64 k = start; k < start + block && k + 16 < size; k += step) {
            const sd_form *f = m->forms;
            sd_view v = {p + k, (u32)k, (u32)(size - k), k};
            u64 t;
            if (arch == SD_RISCV) { /* far calls are auipc pairs; jal and both count */
                u32 w = sd_l32(v.p);
                if ((w & 0xFFF) != 0x0EF && !((w & 0xFFF) == 0x097 && (sd_l32(v.p + 4) & 0xFFFFF) == 0x080E7))
                    continue;
                f = (w & 0x7F) == 0x17 ? m->forms + 1 : m->forms;
            }
            u64 w = sd_word(v.p, f->len);
            if ((w & f->mask) != f->value || !f->get(&v, w, &t) || t + 4 > size || (t & (m->step - 1u)) || t == k)
                continue;
            ++*calls;
            *hits += (u32)prologue(arch, p + t);
        }
}

int sd_detect(const u8 *p, u32 size)
{
    sd_segment s[SD_MAX_SEGMENTS];
    u32 n;
    if (size < 64)
        return SD_PLAIN;
    if (sd_esp_segments(p, size, s, &n)) {
        u32 chip = sd_l16(p + 12);
        return chip == 5 || chip == 12 || chip == 13 || chip == 16 || chip == 18 || chip == 20 || chip == 23 ? SD_RISCV : SD_XTENSA;
    }
    if (!memcmp(p, "\x7f" "ELF", 4))
        switch (sd_l16(p + 18)) {
        case 183: return SD_A64;
        case 62: return SD_X86;
        case 94: return SD_XTENSA;
        case 243: return SD_RISCV;
        default: break;
        }
    int best = SD_PLAIN;
    double most = 0;
    for (int arch = SD_THUMB; arch < SD_ARCHES; arch++) {
        u32 calls, hits;
        count_calls(arch, p, size, &calls, &hits);
        if (hits < 16 || hits * 8 < calls)
            continue;
        double score = (double)hits * hits / calls;
        if (score > most) {
            most = score;
            best = arch;
        }
    }
    return best;
}

/* The load address by vote: words that point at where functions begin agree on one. */
static u64 load_address(int arch, const u8 *p, u32 size)
{
    enum { MOST = 3000, BINS = 1 << 20 };
    u32 wide = arch == SD_A64 || arch == SD_X86 ? 8 : 4, np = 0, nw = 0, best = 0;
    u32 *starts = malloc(MOST * sizeof *starts), *votes = calloc(BINS, sizeof *votes);
    u64 *words = malloc(MOST * sizeof *words), *who = calloc(BINS, sizeof *who), base = 0;
    u32 step = sd_machines[arch].step;
    if (!starts || !votes || !words || !who)
        goto done;
    for (u32 k = 0; k + 8 <= size && np < MOST; k += step)
        if (prologue(arch, p + k))
            starts[np++] = k;
    u32 limit = np ? starts[np - 1] : 0;
    u64 seen_high = ~(u64)0;
    for (u32 k = 0; k + 8 <= size && nw < MOST; k += wide) {
        u64 w = sd_word(p + k, wide);
        if (arch == SD_THUMB && !(w & 1))
            continue;
        w &= arch == SD_THUMB ? ~(u64)1 : ~(u64)0;
        if (w < 0x100 || (wide == 8 && w >> 40 != 0xFFFF80 && w >> 40 != 0xFFFFFF) || (wide == 4 && w >= 0xF0000000) ||
            (w & (step - 1)))
            continue;
        words[nw++] = w;
    }
    (void)limit;
    (void)seen_high;
    for (u32 a = 0; a < nw; a++)
        for (u32 b = 0; b < np; b++) {
            u64 v = words[a] - starts[b];
            if (v & 0xFF || (wide == 4 && v >> 32))
                continue;
            u32 bin = sd_mix((u32)v, (u32)(v >> 32)) % BINS;
            if (who[bin] != v && votes[bin]) {
                votes[bin]--;
                continue;
            }
            who[bin] = v;
            if (++votes[bin] > best) {
                best = votes[bin];
                base = v;
            }
        }
    if (best < 8)
        base = 0;
done:
    free(starts);
    free(votes);
    free(words);
    free(who);
    return base;
}

void sd_segments(int arch, const u8 *p, u32 size, sd_segment *s, u32 *n)
{
    *n = 0;
    if (arch >= SD_XTENSA && sd_esp_segments(p, size, s, n))
        return;
    *n = 0;
    if (size > 64 && !memcmp(p, "\x7f" "ELF\2\1", 6)) {
        u64 at = sd_l64(p + 32);
        u32 count = sd_l16(p + 56), each = sd_l16(p + 54);
        for (u32 k = 0; k < count && *n < SD_MAX_SEGMENTS && at + each <= size && each >= 56; k++, at += each) {
            const u8 *h = p + at;
            u64 off = sd_l64(h + 8), len = sd_l64(h + 32);
            if (sd_l32(h) != 1 || off >= size || len > size - off)
                continue;
            s[*n].off = (u32)off;
            s[*n].len = (u32)len;
            s[(*n)++].va = sd_l64(h + 16);
        }
        if (*n)
            return;
    }
    s->off = 0;
    s->len = size;
    s->va = arch == SD_PLAIN ? 0 : load_address(arch, p, size);
    *n = 1;
}
