/* Which machine an image is for, and where it is loaded: from the image alone. */
#include "decoder/core.h"
#include <stdlib.h>

/* Whether a function may begin here; sixteen bytes can be read. */
static int prologue(int arch, const u8 *p)
{
    u32 w = sd_l32(p);
    switch (arch) {
    case SD_MIXED:
        if ((w & 0xFFFF4000) == 0xE92D4000)
            return 1; /* fall through */
    case SD_THUMB: return (w & 0xFF00) == 0xB500 || (w & 0xFFFF) == 0xE92D;
    case SD_ARM: return (w & 0xFFFF4000) == 0xE92D4000;
    case SD_A64:
        if (w == 0xD503201F && sd_l32(p + 4) == w) /* two NOPs that a tracer may patch, then it begins */
            w = sd_l32(p + 8);
        return (w & 0xFFC07FFF) == 0xA9807BFD || w == 0xD503233F || w == 0xD503245F || (w & 0xFF8003FF) == 0xD10003FF;
    case SD_X86: return *p == 0x55 || w == 0xFA1E0FF3 || (w & 0xFFFFFF) == 0xEC8348 || ((w & 0xF8FF) == 0x5041);
    case SD_XTENSA: return *p == 0x36 && (p[1] & 15) == 1;
    case SD_RISCV: return (w & 0xFF83) == 0x7101 || (w & 0xFF83) == 0x1101 || (w & 0x800FFFFF) == 0x80010113;
    default: return 0;
    }
}


void sd_count_calls(int arch, const u8 *p, u32 size, u32 *calls, u32 *hits)
{
    const sd_machine *m = &sd_machines[arch];
    u32 step = arch == SD_XTENSA ? 1 : m->step, block = 1 << 16, jump = size > 16u << 20 ? size / 256 : block;
    *calls = *hits = 0;
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
            if ((w & f->mask) != f->value || !f->get(&v, w, &t) || t + 16 > size || (t & (m->step - 1u)) || t == k)
                continue;
            ++*calls;
            *hits += (u32)prologue(arch, p + t);
        }
}

/* What an ESP8266 is loaded with: by the header at the beginning and, behind a boot loader, by a second one; the rest
 * is flash, which stands in its address space as it lies. */
static int in_esp8266(u32 va)
{
    return (va >= 0x3FFE8000 && va < 0x40000000) || va >> 16 == 0x4010 || (va >= 0x40200000 && va < 0x40600000);
}
static u32 esp8266_header(const u8 *p, u32 size, u32 start, sd_segment *s)
{
    u32 at = start + 8;
    if (size < at || p[start] != 0xE9 || p[start + 1] >= SD_MAX_SEGMENTS / 2)
        return 0;
    for (u32 k = 0; k < p[start + 1]; k++) {
        if (size - at < 8 || !in_esp8266(sd_l32(p + at)) || sd_l32(p + at + 4) > size - at - 8)
            return 0;
        s[k] = (sd_segment){at + 8, sd_l32(p + at + 4), sd_l32(p + at)};
        at = s[k].off + s[k].len;
    }
    return p[start + 1];
}
static int esp8266_segments(const u8 *p, u32 size, sd_segment *s, u32 *n)
{
    *n = esp8266_header(p, size, 0, s);
    if (!*n)
        return 0;
    *n += esp8266_header(p, size, 0x1000, s + *n);
    s[(*n)++] = (sd_segment){0, size, 0x40200000};
    return 1;
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
    if (esp8266_segments(p, size, s, &n))
        return SD_XTENSA;
    if (!memcmp(p, "\x7f" "ELF", 4))
        switch (sd_l16(p + 18)) {
        case 183: return SD_A64;
        case 62: return SD_X86;
        case 94: return SD_XTENSA;
        case 243: return SD_RISCV;
        default: break;
        }
    int best = SD_PLAIN, strong[SD_ARCHES] = {0};
    double most = 0;
    for (int arch = SD_THUMB; arch <= SD_RISCV; arch++) {
        u32 calls, hits;
        sd_count_calls(arch, p, size, &calls, &hits);
        if (hits < 16 || hits * 8 < calls)
            continue;
        strong[arch] = hits > 200;
        double score = (double)hits * hits / calls;
        if (score > most) {
            most = score;
            best = arch;
        }
    }
    return strong[SD_THUMB] && strong[SD_ARM] ? SD_MIXED : best;
}

static int by_value(const void *a, const void *b)
{
    u64 x = *(const u64 *)a, y = *(const u64 *)b;
    return x < y ? -1 : x > y;
}
/* The words that may point at code: the densest stretch of values as long as the image, around the reset vector
 * where there is one. Returns how many, the lowest first. */
static u32 pointers(int arch, const u8 *p, u32 size, u64 *words, u32 most, u64 *from)
{
    u32 wide = arch == SD_A64 || arch == SD_X86 ? 8 : 4, n = 0, step = sd_machines[arch].step;
    u32 sp = sd_l32(p), reset = sd_l32(p + 4), every = size / wide > 4 * most ? size / wide / (4 * most) : 1;
    int vectors = arch == SD_THUMB && reset & 1 && sp >= 0x10000000 && sp < 0x30000000 && !(sp & 3) && reset < 0xE0000000;
    for (u64 k = 0; k + 8 <= size && n < most; k += wide * (u64)every) {
        u64 w = sd_word(p + k, wide);
        if (arch == SD_THUMB || arch == SD_MIXED) {
            if (!(w & 1) && arch == SD_THUMB)
                continue;
            w &= ~(u64)1;
        }
        if (w < (vectors ? 0x100 : size) || w & (step - 1u) || (wide == 8 && w >> 40 != 0xFFFF80 && w >> 40 != 0xFFFFFF) ||
            (wide == 4 && w >= (arch == SD_THUMB ? 0xF0000000 : 0xE0000000)) || (vectors && w - reset + size >= 2 * (u64)size))
            continue;
        words[n++] = w;
    }
    if (!n)
        return 0;
    qsort(words, n, sizeof *words, by_value);
    u32 own = 1;
    for (u32 k = 1; k < n; k++)
        if (words[k] != words[own - 1])
            words[own++] = words[k];
    n = own;
    u32 best = 0, start = 0, a = 0;
    for (u32 b = 0; b < n; b++) {
        while (words[b] - words[a] >= size)
            a++;
        if (b - a + 1 > best) {
            best = b - a + 1;
            start = a;
        }
    }
    memmove(words, words + start, best * sizeof *words);
    *from = words[0];
    return best;
}
/* The load address by vote: words that point at where functions begin agree on one. */
static u64 load_address(int arch, const u8 *p, u32 size)
{
    enum { WORDS = 200000, TRIED = 4000 };
    u32 page = arch == SD_A64 || arch == SD_X86 ? 4096 : 256, bins = size / page * 2 + 4, np = 0, best = 0, second = 0;
    u32 step = sd_machines[arch].step, *starts = malloc(((size_t)size / step + 1) * sizeof *starts);
    u32 *votes = calloc(bins, sizeof *votes);
    u64 *words = malloc(WORDS * sizeof *words), from = 0, base = 0;
    if (!starts || !votes || !words)
        goto done;
    u32 nw = pointers(arch, p, size, words, WORDS, &from);
    for (u32 k = 0; k + 16 <= size; k += step)
        if (prologue(arch, p + k))
            starts[np++] = k;
    u64 low = (from > size ? from - size : 0) & ~(u64)(page - 1);
    for (u32 a = 0; a < nw; a += nw / TRIED + 1) /* every start, by the words that lie whole pages from it */
        for (u32 b = 0, each = np / 20000 + 1; b < np; b += each) {
            u64 v = words[a] - starts[b] - low;
            if (words[a] >= starts[b] + low && !(v & (page - 1)) && v / page < bins)
                votes[v / page]++;
        }
    for (u32 k = 0; k < bins; k++)
        if (votes[k] > best) {
            second = best;
            best = votes[k];
            base = low + (u64)k * page;
        } else if (votes[k] > second)
            second = votes[k];
    if (best < 8 || best < second + second / 4)
        base = 0;
done:
    free(starts);
    free(votes);
    free(words);
    return base;
}

void sd_segments(int arch, const u8 *p, u32 size, sd_segment *s, u32 *n)
{
    *n = 0;
    if ((arch == SD_XTENSA || arch == SD_RISCV) && sd_esp_segments(p, size, s, n))
        return;
    if (arch == SD_XTENSA && esp8266_segments(p, size, s, n))
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
    s->va = arch == SD_PLAIN || size > 64u << 20 ? 0 : load_address(arch, p, size);
    *n = 1;
}
