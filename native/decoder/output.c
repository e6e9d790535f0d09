/* The image as it comes: its end stays readable, its last megabytes where the profile has room for them. */
#include "core.h"

void sd_flush(sd_walk *w)
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
u32 sd_tail32(const sd_walk *w) { return sd_l32(w->out + w->out_n - 4); } /* the last byte on top */
void sd_emit(sd_walk *w, u8 byte)
{
    if (SD_LARGE(w))
        w->history[w->at & (w->history_n - 1)] = byte;
    w->at++;
    if (w->out_n == SD_TAIL + SD_OUT)
        sd_flush(w);
    w->out[w->out_n++] = byte;
}
void sd_emit_many(sd_walk *w, const u8 *from, u32 n)
{
    while (n) {
        u32 room = SD_TAIL + SD_OUT - w->out_n, part = n < room ? n : room;
        if (!part) {
            sd_flush(w);
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

/* --- match model: where did the last five bytes stand before? -------------------------------------------------------- */
u32 sd_seen_key(const sd_walk *w, const u8 *p5) { return (u32)((u64)sd_mix(sd_l32(p5), p5[4]) * w->seen_n >> 32); }
int sd_seen_byte(const sd_walk *w, sd_wide at, u8 *byte)
{
    if (at < w->base_size)
        *byte = w->base[at];
    else {
        sd_wide k = at - w->base_size;
        if (k >= w->at || w->at - k >= w->history_n)
            return 0;
        *byte = w->history[k & (w->history_n - 1)];
    }
    return 1;
}
void sd_seen_put(sd_walk *w)
{
    if (SD_LARGE(w) && w->at >= 5 && w->at < 0xFFFFFF00u - w->base_size)
        w->seen[sd_seen_key(w, w->out + w->out_n - 5)] = w->base_size + w->at;
}
