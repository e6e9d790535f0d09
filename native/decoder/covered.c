/* Bytes that a match covers: as predicted, as the second guess says, or told. */
#include "core.h"

#define BLOCK 48
#define PAGE 4096

/* One byte, and all that speaks for what it is. */
typedef struct {
    u32 j;                 /* its place in the base */
    u8 old, first;         /* the base's byte; the field's where one was found, else the base's */
    u8 again, sure, guess; /* what these bytes became the last time, how surely; the best of all this */
    u32 type, place;       /* of the field; which of its bytes */
    u32 f4, o4, al;        /* the base's bytes from here on, up to here, and of the word around */
    u32 agree, hx;
    sd_pair *pair;
    int known;
} spot;

static void step_unit(sd_walk *w, u32 j)
{
    while (w->unit < j && w->machine->code_to)
        w->unit += sd_unit_length(w->h.arch, w->base + w->unit, sd_address(w->old_seg, w->old_segs, w->unit),
                                  w->base_size - w->unit);
}

/* --- runs told by one bit ------------------------------------------------------------------------------- */
/* A page that did not change at all: told by one bit, so that large images cost little time. */
static int same_page(sd_walk *w, u32 j)
{
    int same = sd_plain(&w->c, w->pages + (w->page_hist & 3), sd_goes_on(w, w->base + j, PAGE));
    w->page_hist = w->page_hist << 1 | (u32)same;
    return same;
}
/* What the next bytes are when every prediction holds: a block, and the field that reaches over its end. */
static u32 guess_block(sd_walk *w, u32 j, u32 left, u8 *out)
{
    u32 n = 0;
    sd_field f;
    while (n < BLOCK && n < left) {
        step_unit(w, j + n);
        sd_find_field(w, j + n, w->at + n, left - n, w->unit == j + n, &f);
        if (f.len)
            memcpy(out + n, f.bytes, f.len);
        else
            out[n] = w->base[j + n];
        n += f.len ? f.len : 1;
    }
    return n;
}
/* How many bytes were told by one bit; none: those up to `block` are told one by one. */
static u32 told_at_once(sd_walk *w, u32 j, u32 left, u32 *block)
{
    u8 guess[BLOCK + 8];
    if (SD_LARGE(w) && left >= PAGE && same_page(w, j)) {
        sd_emit_many(w, w->base + j, PAGE);
        return PAGE;
    }
    u32 unit = w->unit, n = guess_block(w, j, left, guess);
    *block = w->at + n;
    if (!sd_plain(&w->c, w->blocks + (w->block_hist & 255), sd_goes_on(w, guess, n))) {
        w->block_hist <<= 1;
        w->unit = unit;
        return 0;
    }
    w->block_hist = w->block_hist << 1 | 1;
    for (u32 k = 0; k < n; k++) {
        sd_emit(w, guess[k]);
        sd_seen_put(w);
    }
    w->hist = 0;
    return n;
}

/* --- bytes told one by one ------------------------------------------------------------------------------ */
static void look(const sd_walk *w, u32 j, const sd_field *f, spot *s)
{
    u8 near[12]; /* base[j-4 .. j+7] */
    u32 ph = j & 3, in_field = f->done < f->len;
    for (u32 k = 0; k < 12; k++)
        near[k] = j + k >= 4 && j + k - 4 < w->base_size ? w->base[j + k - 4] : 0;
    s->j = j;
    s->old = s->first = w->base[j];
    s->type = s->place = 0;
    if (in_field)
        s->first = f->bytes[f->done], s->type = f->type, s->place = f->done;
    s->o4 = sd_l32(near + 1);
    s->f4 = sd_l32(near + 4);
    s->al = sd_l32(near + 4 - ph);
    s->hx = sd_mix(s->f4, near[3] | ph << 8 | s->type << 12);
    s->pair = w->pairs + ((u64)s->hx * w->pair_n >> 32);
    s->known = s->pair->count && s->pair->check == (u16)s->hx;
    s->again = s->known ? s->pair->value : s->first;
    s->sure = s->known ? s->pair->count > 3 ? 3 : s->pair->count : 0;
    s->guess = s->sure > 1 ? s->again : s->first;
    s->agree = (u32)(s->first == s->old) | (u32)(s->again == s->first) << 1 | (u32)(s->again == s->old) << 2;
}
static u32 since_miss(const sd_walk *w)
{
    u32 n = w->at - w->last_miss;
    return n < 16 ? n : n < 32 ? 16 : n < 64 ? 17 : n < 256 ? 18 : n < 1024 ? 19 : 20;
}
static int guess_holds(sd_walk *w, const spot *s, u8 sym)
{
    sd_mixer *m = &w->m;
    u32 o = sd_tail32(w), c1 = o >> 24, c2 = o >> 16 & 255, ph = s->j & 3, dq = since_miss(w), half = m->sets / 2;
    u32 ctx = s->type | s->agree << 6, sure = s->sure;
    sd_add(m, sd_mix((w->hist & 0xFF) | 0x10000, ctx));
    sd_add(m, sd_mix(dq | ph << 8 | 0x20000, ctx));
    sd_add(m, sd_mix(s->f4, 0x30000 | ph));
    sd_add(m, sd_mix(s->o4, 0x40000u | sure));
    sd_add(m, sd_mix(s->al ^ ph << 30, 0x50000 | s->type));
    sd_add(m, sd_mix((s->type << 8 | w->field_hits[s->type]) << 4 | s->place, 0x60000 | s->agree | sure << 3));
    sd_add(m, sd_mix(s->old | c1 << 8 | (w->hist & 3) << 16, 0x70000 | s->type));
    sd_add(m, sd_mix(w->hist & 0xFFFF, 0x80000 | (u32)(s->guess != s->old) << 4 | s->type << 5));
    sd_add(m, sd_mix(s->guess | c1 << 8 | c2 << 16, 0x90000));
    return sd_mixed(m, &w->c, sym == s->guess, ((s->type * 8 + s->agree) * 4 + sure) % half,
                    (dq * 3 + (w->hist & 3)) % half, w->size->lazy);
}
static u8 told_byte(sd_walk *w, const spot *s, u8 sym)
{
    u32 o = sd_tail32(w), c1 = o >> 24, c2 = o >> 16 & 255, ph = s->j & 3;
    u8 drift = (u8)(s->first + w->deltas[ph]), d1 = (u8)(s->j ? (u8)c1 - w->base[s->j - 1] : 0);
    u32 cx[8] = {s->old | (u32)s->first << 8 | 0x1000000u,
                 drift | 0x2000000u | s->type << 8 | s->place << 16,
                 c1 | (u32)s->first << 8 | 0x3000000u,
                 c1 | c2 << 8 | 0x4000000u,
                 d1 | (u32)s->first << 8 | s->type << 16 | 0x5000000u,
                 sd_mix(s->f4, 0x99 + s->type),
                 sd_mix(s->al, ph),
                 sd_mix(s->o4, 0x77)};
    int inputs = SD_LARGE(w) ? 8 : 6;
    u32 c0 = 1, sets = w->m.sets, quarter = sets / 4;
    for (int b = 7; b >= 0; b--) {
        for (int k = 0; k < inputs; k++)
            sd_add(&w->m, sd_mix(cx[k], c0 * 32 + (u32)k));
        int bit = sd_mixed(&w->m, &w->c, sym >> b & 1, sets / 2 + (7 - (u32)b) % quarter,
                           sets / 2 + (s->type * 3 + 8) % quarter, 0);
        c0 = c0 << 1 | (u32)bit;
    }
    return (u8)c0;
}
/* The byte when the first guess was wrong. */
static u8 surprise(sd_walk *w, const spot *s, u8 sym)
{
    sd_mixer *m = &w->m;
    u32 half = m->sets / 2, quarter = m->sets / 4;
    u8 second = s->guess != s->first ? s->first : s->guess != s->old ? s->old : s->known ? s->again : s->guess;
    if (second != s->guess) {
        sd_add(m, sd_mix(s->type << 4 | s->place << 10 | s->agree << 14, 0xA0000));
        sd_add(m, sd_mix(s->f4, 0xB0000 | s->agree));
        sd_add(m, sd_mix(w->hist & 0xFF, 0xC0000 | s->agree));
        if (sd_mixed(m, &w->c, sym == second, half + s->agree % quarter, half + 8 % quarter, 0))
            return second;
    }
    return told_byte(w, s, sym);
}
static void remember(const spot *s, u8 sym)
{
    sd_pair *p = s->pair;
    if (!s->known) {
        if (sym != s->first)
            *p = (sd_pair){(u16)s->hx, sym, 1};
    } else if (p->value == sym)
        p->count = p->count < 255 ? p->count + 1 : 255;
    else if (p->count > 1)
        p->count = 1;
    else
        p->value = sym;
}
static void one_byte(sd_walk *w, u32 j, const sd_field *f)
{
    spot s;
    u8 sym = sd_wanted(w);
    look(w, j, f, &s);
    if (guess_holds(w, &s, sym))
        sym = s.guess;
    else {
        sym = surprise(w, &s, sym);
        w->deltas[j & 3] = (u8)(sym - s.first);
        if (SD_MAKES(w->made))
            w->made->missed++;
    }
    remember(&s, sym);
    if (s.type)
        w->field_hits[s.type] = (u8)((w->field_hits[s.type] << 1 | (sym == s.first)) & 7);
    w->hist = w->hist << 1 | (u32)(sym != s.old);
    if (sym != s.guess)
        w->last_miss = w->at;
    sd_emit(w, sym);
    sd_seen_put(w);
}
static void count_field(const sd_walk *w, u32 after, const sd_field *f)
{
    u32 same = !memcmp(f->bytes, w->base + after - f->len, f->len);
    w->made->fields++;
    w->made->fields_moved += !same;
    w->made->fields_right += !same && !memcmp(f->bytes, w->out + w->out_n - f->len, f->len);
}

void sd_covered(sd_walk *w)
{
    u32 j = w->now.from, end = w->now.at + w->now.len, block = w->at, n;
    sd_field f = {{0}, 0, 0, 0, 0, 0, 0, 0};
    w->unit = j;
    if (w->machine->forms && w->machine->code_to && w->h.arch == SD_XTENSA) /* streams of instructions find themselves */
        w->unit = j > 64 ? j - 64 : 0;
    while (w->at < end && !w->c.failed) {
        int between = f.done >= f.len;
        if (between && w->h.blocks && w->at >= block && (n = told_at_once(w, j, end - w->at, &block))) {
            j += n;
            continue;
        }
        step_unit(w, j);
        if (between)
            sd_find_field(w, j, w->at, end - w->at, w->unit == j, &f);
        one_byte(w, j++, &f);
        if (f.done < f.len && ++f.done == f.len) {
            if (SD_MAKES(w->made))
                count_field(w, j, &f);
            sd_learn_field(w, &f);
        }
    }
}
