/* Memory: one piece, cut the same way everywhere. */
#include "core.h"

/* Where each table begins, from the start of the piece; what they take together. */
typedef struct {
    u32 probabilities, states, weights, links, pairs, seen, history, out, matches, all;
} places;

static u32 width_of(const sd_header *h) { return (h->base_size | h->target_size) >> 24 ? 4 : 3; }
static u32 take(u32 *used, u32 n)
{
    u32 at = *used;
    *used += (n + 7) & ~7u;
    return at;
}
static places places_of(const sd_header *h)
{
    const sd_size *z = &sd_sizes[h->profile];
    places p;
    p.all = 0;
    p.probabilities = take(&p.all, z->slots * 2);
    p.states = take(&p.all, z->slots);
    p.weights = take(&p.all, z->sets * SD_INPUTS * 4);
    p.links = take(&p.all, z->links * (u32)sizeof(sd_link));
    p.pairs = take(&p.all, z->pairs * (u32)sizeof(sd_pair));
    p.seen = take(&p.all, z->seen * 4);
    p.history = take(&p.all, z->history);
    p.out = take(&p.all, SD_TAIL + SD_OUT);
    p.matches = take(&p.all, h->matches * (3 * width_of(h) + 2));
    return p;
}
u32 sd_memory_needed(const sd_header *h) { return places_of(h).all + SD_STATE; }
u32 sd_most_matches(const sd_header *h)
{
    sd_header none = *h;
    none.matches = 0;
    u32 most = (sd_sizes[h->profile].memory - sd_memory_needed(&none)) / (3 * width_of(h) + 2);
    return most < 65535 ? most : 65535;
}

static void cut(sd_walk *w, u8 *memory, const places *p)
{
    const sd_size *z = w->size;
    w->m.slots = (sd_slots){(u16 *)(void *)(memory + p->probabilities), memory + p->states, z->slots, z->lazy, z->rate};
    w->m.weights = (i32 *)(void *)(memory + p->weights);
    w->m.sets = z->sets;
    w->links = (sd_link *)(void *)(memory + p->links);
    w->link_n = z->links;
    w->pairs = (sd_pair *)(void *)(memory + p->pairs);
    w->pair_n = z->pairs;
    w->seen = (u32 *)(void *)(memory + p->seen);
    w->seen_n = z->seen;
    w->history = memory + p->history;
    w->history_n = z->history;
    w->out = memory + p->out;
    w->match_mem = memory + p->matches;
}
static void even(u16 *counters, u32 n)
{
    while (n--)
        *counters++ = 32768;
}
int sd_layout(sd_walk *w, void *memory, size_t size)
{
    places p = places_of(&w->h);
    if (p.all > size)
        return SD_MEMORY;
    w->size = &sd_sizes[w->h.profile];
    w->width = width_of(&w->h);
    w->base_size = w->h.base_size;
    w->target_size = w->h.target_size;
    w->matches = w->h.matches;
    w->machine = &sd_machines[w->h.arch];
    cut(w, memory, &p);
    sd_mixer_clear(&w->m);
    memset(w->links, 0, w->link_n * sizeof *w->links);
    memset(w->pairs, 0, w->pair_n * sizeof *w->pairs);
    memset(w->seen, 0xFF, w->seen_n * 4);
    memset(w->history, 0, w->history_n);
    memset(w->out, 0, SD_TAIL);
    w->out_n = SD_TAIL;
    even(w->nums[0], sizeof w->nums / sizeof **w->nums);
    even(w->blocks, 256);
    even(w->pages, 4);
    return SD_OK;
}
