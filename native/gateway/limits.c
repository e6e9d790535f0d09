/* What a limit decides. A state is a hash table of keys under one lock, its keys also in a list by last use. */
#include "limits.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct entry {
    struct entry *next;        /* of the same slot */
    struct entry *newer, *older; /* by last use */
    uint64_t hash;
    int64_t arrival_us;                /* gcra: the theoretical arrival time */
    int64_t window[MAX_PERIODS];       /* calendar: which window the count is of */
    uint32_t count[MAX_PERIODS];       /* calendar */
    int64_t *log;                      /* sliding: a ring of arrivals, grown as it fills */
    uint32_t room, first, used;
    uint32_t length;
    char key[];
} entry;

enum { SLOTS = 4096, FIRST_ROOM = 8 };

struct state {
    struct state *next;
    rule r;
    int users;
    pthread_mutex_t lock;
    entry *slots[SLOTS];
    entry *newest, *oldest;
    uint32_t keys;
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static state *registry;

static bool same_rule(const rule *a, const rule *b)
{
    if (strcmp(a->name, b->name) || a->how != b->how || a->n_periods != b->n_periods || a->burst != b->burst ||
        a->counts_refused != b->counts_refused)
        return false;
    for (int i = 0; i < a->n_periods; i++)
        if (a->periods[i].window_us != b->periods[i].window_us || a->periods[i].limit != b->periods[i].limit)
            return false;
    return true;
}

static void forget(state *s)
{
    for (entry *e = s->newest, *older; e; e = older) {
        older = e->older;
        free(e->log);
        free(e);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* States that nobody uses stay until the next new one is made: a listener that is replaced asks for the same
 * rule before or just after the old one lets go, and must find its counts. */
static void forget_unused(void)
{
    for (state **at = &registry; *at;) {
        state *s = *at;
        if (s->users) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        forget(s);
    }
}

state *state_of(const rule *r)
{
    pthread_mutex_lock(&registry_lock);
    state *s = registry;
    while (s && !same_rule(&s->r, r))
        s = s->next;
    if (!s) {
        forget_unused();
        s = calloc(1, sizeof *s);
        if (s) {
            s->r = *r;
            pthread_mutex_init(&s->lock, NULL);
            s->next = registry;
            registry = s;
        }
    }
    if (s)
        s->users++;
    pthread_mutex_unlock(&registry_lock);
    return s;
}

void state_give_back(state *s)
{
    pthread_mutex_lock(&registry_lock);
    s->users--;
    pthread_mutex_unlock(&registry_lock);
}

/* --- keys ---------------------------------------------------------------------------------------------- */

static uint64_t hash_of(const char *key, size_t n)
{
    uint64_t h = 1469598103934665603ULL; /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)key[i]) * 1099511628211ULL;
    return h;
}

static void unlist(state *s, entry *e)
{
    *(e->newer ? &e->newer->older : &s->newest) = e->older;
    *(e->older ? &e->older->newer : &s->oldest) = e->newer;
}

static void list_newest(state *s, entry *e)
{
    e->newer = NULL;
    e->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = e;
    s->newest = e;
}

static void evict_oldest(state *s)
{
    entry *e = s->oldest;
    entry **at = &s->slots[e->hash % SLOTS];
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    unlist(s, e);
    free(e->log);
    free(e);
    s->keys--;
}

static entry *entry_of(state *s, uint32_t max_keys, const char *key, size_t n)
{
    uint64_t h = hash_of(key, n);
    entry *e = s->slots[h % SLOTS];
    while (e && (e->hash != h || e->length != n || memcmp(e->key, key, n)))
        e = e->next;
    if (e) {
        unlist(s, e);
        list_newest(s, e);
        return e;
    }
    if (s->keys >= max_keys && s->oldest)
        evict_oldest(s);
    e = calloc(1, sizeof *e + n);
    if (!e)
        return NULL;
    e->hash = h;
    e->length = (uint32_t)n;
    memcpy(e->key, key, n);
    e->next = s->slots[h % SLOTS];
    s->slots[h % SLOTS] = e;
    list_newest(s, e);
    s->keys++;
    return e;
}

/* --- the three algorithms --------------------------------------------------------------------------------- */

static verdict by_gcra(entry *e, const rule *r, int64_t now)
{
    const int64_t every = r->periods[0].window_us / r->periods[0].limit;
    const int64_t tolerance = (int64_t)(r->burst - 1) * every;
    const int64_t due = e->arrival_us > now ? e->arrival_us : now;
    const int64_t delay = due - tolerance - now;
    verdict v = {.ok = delay <= r->max_delay_us};

    if (v.ok) {
        e->arrival_us = due + every;
        v.delay_us = delay > 0 ? delay : 0;
    } else {
        v.retry_us = delay - r->max_delay_us;
    }
    const int64_t slack = now + tolerance + every - e->arrival_us;
    v.remaining[0] = slack > 0 ? (uint32_t)(slack / every) : 0;
    v.reset_us[0] = e->arrival_us > now ? e->arrival_us - now : 0;
    return v;
}

static bool make_room(entry *e, uint32_t limit)
{
    if (e->used < e->room)
        return true;
    uint32_t room = e->room ? e->room * 2 : FIRST_ROOM;
    if (room > limit)
        room = limit;
    int64_t *log = malloc(room * sizeof *log);
    if (!log)
        return false;
    for (uint32_t i = 0; i < e->used; i++)
        log[i] = e->log[(e->first + i) % e->room];
    free(e->log);
    e->log = log;
    e->room = room;
    e->first = 0;
    return true;
}

static verdict by_log(entry *e, const rule *r, int64_t now)
{
    const period p = r->periods[0];
    while (e->used && e->log[e->first] <= now - p.window_us) {
        e->first = (e->first + 1) % e->room;
        e->used--;
    }
    verdict v = {.ok = e->used < p.limit && make_room(e, p.limit)};
    if (v.ok) {
        e->log[(e->first + e->used) % e->room] = now;
        e->used++;
    }
    v.remaining[0] = p.limit - e->used;
    v.reset_us[0] = e->used ? e->log[e->first] + p.window_us - now : 0;
    v.retry_us = v.ok ? 0 : v.reset_us[0];
    return v;
}

/* Which window a moment is in, and how long it lasts from there. */
static int64_t window_at(int64_t window_us, int64_t wall, int64_t *left)
{
    const int64_t day = 86400000000LL;
    if (window_us < 30 * day) {
        *left = window_us - wall % window_us;
        return wall / window_us;
    }
    const bool year = window_us >= 365 * day;
    const time_t now = (time_t)(wall / 1000000);
    struct tm t;
    gmtime_r(&now, &t);
    struct tm next = {.tm_year = t.tm_year + year, .tm_mon = year ? 0 : t.tm_mon + 1, .tm_mday = 1};
    *left = (int64_t)timegm(&next) * 1000000 - wall;
    return year ? t.tm_year : t.tm_year * 12 + t.tm_mon;
}

static verdict by_calendar(entry *e, const rule *r, int64_t wall)
{
    verdict v = {.ok = true};
    for (int i = 0; i < r->n_periods; i++) {
        const int64_t window = window_at(r->periods[i].window_us, wall, &v.reset_us[i]);
        if (e->window[i] != window) {
            e->window[i] = window;
            e->count[i] = 0;
        }
        v.ok = v.ok && e->count[i] < r->periods[i].limit;
    }
    for (int i = 0; i < r->n_periods; i++) {
        const period p = r->periods[i];
        if (e->count[i] < UINT32_MAX && (v.ok || r->counts_refused))
            e->count[i]++;
        v.remaining[i] = e->count[i] < p.limit ? p.limit - e->count[i] : 0;
        if (v.remaining[i] < v.remaining[v.tightest] ||
            (v.remaining[i] == v.remaining[v.tightest] && p.window_us > r->periods[v.tightest].window_us))
            v.tightest = i;
    }
    v.retry_us = v.ok ? 0 : v.reset_us[v.tightest];
    return v;
}

/* How many are under way: the window's length plays no part. */
static verdict by_presence(entry *e, const rule *r)
{
    verdict v = {.ok = e->count[0] < r->periods[0].limit, .retry_us = 1000000};
    if (v.ok)
        e->count[0]++;
    v.remaining[0] = r->periods[0].limit - e->count[0];
    return v;
}

void leave(state *s, const char *key, size_t length)
{
    const uint64_t h = hash_of(key, length);
    pthread_mutex_lock(&s->lock);
    entry *e = s->slots[h % SLOTS];
    while (e && (e->hash != h || e->length != length || memcmp(e->key, key, length)))
        e = e->next;
    if (e && e->count[0])
        e->count[0]--;
    pthread_mutex_unlock(&s->lock);
}

verdict arrive(state *s, const rule *r, const char *key, size_t length, int64_t mono_us, int64_t wall_us)
{
    verdict v = {.ok = true}; /* without memory for a new key: nobody is turned away for it */
    pthread_mutex_lock(&s->lock);
    entry *e = entry_of(s, r->max_keys, key, length);
    if (e)
        switch (r->how) {
        case GCRA:
            v = by_gcra(e, r, mono_us);
            break;
        case SLIDING:
            v = by_log(e, r, mono_us);
            break;
        case CALENDAR:
            v = by_calendar(e, r, wall_us);
            break;
        case IN_FLIGHT:
            v = by_presence(e, r);
            break;
        }
    pthread_mutex_unlock(&s->lock);
    return v;
}
