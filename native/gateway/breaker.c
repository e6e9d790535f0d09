/* A circuit breaker by what really happened: closed, it watches ten seconds; open, it refuses; recovering, it lets a
 * growing part through, and opens again when that fails. One state a breaker, shared by all workers.
 *
 *   name BREAKER   check_ms N   open_ms N   recovery_ms N   status N   body TEXT
 *   trip network RATIO | trip status FROM TO OF_FROM OF_TO RATIO | trip latency QUANTILE MS
 *   and (the same)      it must hold together with those before it, up to the last trip
 */
#include "envoy.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECONDS = 10, STATUSES = 600, BINS = 96, MAX_TRIPS = 16, MAX_NAME = 96, MAX_BODY = 512 };

typedef enum { NETWORK, STATUS, LATENCY } what;
typedef enum { CLOSED, OPEN, RECOVERING } phase;

typedef struct {
    what of;
    double numbers[4];
    double limit;
    bool joined; /* to the one before */
} trip;

typedef struct {
    int64_t second; /* which one it counts */
    uint32_t all, network;
    uint32_t statuses[STATUSES];
    uint32_t latency[BINS]; /* bin n: up to 1.2^n tenths of a millisecond */
} slice;

typedef struct state {
    struct state *next;
    char name[MAX_NAME];
    pthread_mutex_t lock;
    slice slices[SECONDS];
    phase now;
    int64_t until_us, check_us, since_us;
    uint32_t turn;
} state;

typedef struct {
    char name[MAX_NAME], body[MAX_BODY];
    trip trips[MAX_TRIPS];
    int n_trips;
    int64_t check_us, open_us, recovery_us;
    uint32_t status;
    state *s;
} config;

typedef struct {
    int64_t began_us;
    bool refused, network, told;
} stream;

static pthread_mutex_t states_lock = PTHREAD_MUTEX_INITIALIZER;
static state *states;

static state *state_named(const char *name)
{
    pthread_mutex_lock(&states_lock);
    state *s = states;
    while (s && strcmp(s->name, name))
        s = s->next;
    if (!s && (s = calloc(1, sizeof *s))) {
        snprintf(s->name, sizeof s->name, "%s", name);
        pthread_mutex_init(&s->lock, NULL);
        s->next = states;
        states = s;
    }
    pthread_mutex_unlock(&states_lock);
    return s;
}

static bool add_trip(config *c, const char *value, bool joined)
{
    trip *t = &c->trips[c->n_trips];
    double *n = t->numbers;
    if (c->n_trips == MAX_TRIPS || (joined && !c->n_trips))
        return false;
    t->joined = joined;
    if (sscanf(value, "network %lf", &t->limit) == 1)
        t->of = NETWORK;
    else if (sscanf(value, "status %lf %lf %lf %lf %lf", n, n + 1, n + 2, n + 3, &t->limit) == 5)
        t->of = STATUS;
    else if (sscanf(value, "latency %lf %lf", n, &t->limit) == 2)
        t->of = LATENCY;
    else
        return false;
    c->n_trips++;
    return true;
}

static bool parse(void *into, const char *word, const char *value)
{
    config *c = into;
    if (!strcmp(word, "name"))
        return snprintf(c->name, sizeof c->name, "%s", value) < (int)sizeof c->name;
    if (!strcmp(word, "body"))
        return snprintf(c->body, sizeof c->body, "%s", value) < (int)sizeof c->body;
    if (!strcmp(word, "trip") || !strcmp(word, "and"))
        return add_trip(c, value, *word == 'a');
    if (!strcmp(word, "check_ms"))
        return (c->check_us = atoll(value) * 1000) > 0;
    if (!strcmp(word, "open_ms"))
        return (c->open_us = atoll(value) * 1000) > 0;
    if (!strcmp(word, "recovery_ms"))
        return (c->recovery_us = atoll(value) * 1000) > 0;
    if (!strcmp(word, "status"))
        return (c->status = (uint32_t)atoi(value)) >= 400;
    return false;
}

static void *configure(char *lines)
{
    config *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->check_us = 100000;
    c->open_us = c->recovery_us = 10000000;
    c->status = 503;
    if (each_line(lines, parse, c) && (!c->name[0] || (c->n_trips && (c->s = state_named(c->name)))))
        return c;
    free(c);
    return NULL;
}

static void configure_free(void *c) { free(c); }

/* --- what happened ------------------------------------------------------------------------------------------ */

static slice *slice_at(state *s, int64_t us)
{
    const int64_t second = us / 1000000;
    slice *found = &s->slices[second % SECONDS];
    if (found->second != second) {
        memset(found, 0, sizeof *found);
        found->second = second;
    }
    return found;
}

static int bin_of(int64_t us)
{
    const double tenths = (double)us / 100.0;
    const int bin = tenths <= 1 ? 0 : (int)ceil(log(tenths) / log(1.2));
    return bin < BINS ? bin : BINS - 1;
}

typedef struct {
    double all, network;
    double statuses[STATUSES], latency[BINS];
} sums;

static void sum(const state *s, int64_t now, sums *to)
{
    memset(to, 0, sizeof *to);
    for (int i = 0; i < SECONDS; i++) {
        const slice *each = &s->slices[i];
        if (each->second <= now / 1000000 - SECONDS || each->second * 1000000 < s->since_us - 999999)
            continue;
        to->all += each->all;
        to->network += each->network;
        for (int k = 0; k < STATUSES; k++)
            to->statuses[k] += each->statuses[k];
        for (int k = 0; k < BINS; k++)
            to->latency[k] += each->latency[k];
    }
}

static double between(const sums *of, double from, double to)
{
    double found = 0;
    for (int i = from < 0 ? 0 : (int)from; i < (int)to && i < STATUSES; i++)
        found += of->statuses[i];
    return found;
}

static double value_of(const trip *t, const sums *of)
{
    double most = of->all * t->numbers[0] / 100.0, below = 0;
    const double *n = t->numbers;
    switch (t->of) {
    case NETWORK:
        return of->all ? of->network / of->all : 0;
    case STATUS:
        below = between(of, n[2], n[3]);
        return below ? between(of, n[0], n[1]) / below : 0;
    case LATENCY:
        for (int i = 0; i < BINS && of->all; i++)
            if ((below += of->latency[i]) >= most)
                return pow(1.2, i) / 10.0;
    }
    return 0;
}

static bool trips(const config *c, int64_t now)
{
    sums *all = malloc(sizeof *all);
    bool found = false, hold = false;
    if (!all)
        return false;
    sum(c->s, now, all);
    for (int i = 0; i < c->n_trips; i++) {
        const trip *t = &c->trips[i];
        found = found || (hold && !t->joined); /* the alternative before has ended */
        hold = (hold || !t->joined) && value_of(t, all) > t->limit;
    }
    free(all);
    return found || hold;
}

static void open(const config *c, int64_t now)
{
    c->s->now = OPEN;
    c->s->until_us = now + c->open_us;
    c->s->since_us = now; /* what was before does not count against what comes */
    memset(c->s->slices, 0, sizeof c->s->slices);
}

static void happened(const config *c, const stream *f, uint32_t status)
{
    const int64_t now = now_us();
    state *s = c->s;
    pthread_mutex_lock(&s->lock);
    slice *at = slice_at(s, now);
    at->all++;
    at->network += f->network || status == 502 || status == 504;
    at->statuses[status < STATUSES ? status : 0]++;
    at->latency[bin_of(now - f->began_us)]++;
    if (s->now != OPEN && now >= s->check_us) {
        s->check_us = now + c->check_us;
        if (trips(c, now))
            open(c, now);
    }
    pthread_mutex_unlock(&s->lock);
}

/* Whether this one may pass. */
static bool admits(const config *c)
{
    const int64_t now = now_us();
    state *s = c->s;
    bool pass = true;
    pthread_mutex_lock(&s->lock);
    if (s->now == OPEN && now >= s->until_us) {
        s->now = RECOVERING;
        s->until_us = now + c->recovery_us;
    }
    if (s->now == RECOVERING && now >= s->until_us)
        s->now = CLOSED;
    if (s->now == OPEN)
        pass = false;
    else if (s->now == RECOVERING) {
        /* every so-manieth: after a tenth of the time one in ten, at the end all */
        const double part = 1.0 - (double)(s->until_us - now) / (double)c->recovery_us;
        const uint32_t turn = s->turn++;
        pass = !turn || floor(turn * part) != floor((turn - 1.0) * part);
    }
    pthread_mutex_unlock(&s->lock);
    return pass;
}

/* --- one request -------------------------------------------------------------------------------------------- */

static void *begin(void)
{
    stream *f = calloc(1, sizeof *f);
    if (f)
        f->began_us = now_us();
    return f;
}

static void end(void *f, const void *c)
{
    (void)c;
    free(f);
}

static int request(void *envoy, void *s, const void *config_)
{
    const config *c = config_;
    stream *f = s;
    if (!c->s || admits(c))
        return GO_ON;
    f->refused = true;
    const char *type = c->body[0] == '{' ? "application/problem+json" : "text/plain; charset=utf-8";
    header h = {"content-type", 12, type, strlen(type)};
    ENVOY(http_send_response)(envoy, c->status, &h, 1, TEXT(c->body), TEXT("skylift_breaker"));
    return STOP;
}

static int response(void *envoy, void *s, const void *config_, bool last)
{
    (void)last;
    const config *c = config_;
    stream *f = s;
    if (!c->s || f->refused || f->told)
        return GO_ON;
    const text shown = get(envoy, RESPONSE, ":status");
    f->told = true;
    happened(c, f, shown.length == 3 ? (uint32_t)atoi((char[]){shown.at[0], shown.at[1], shown.at[2], 0}) : 0);
    return GO_ON;
}

static void failed(void *s, uint32_t status)
{
    stream *f = s;
    f->network = status >= 502 && status <= 504;
}

const kind BREAKER = {"breaker", configure, configure_free, begin, end, request, response, NULL, failed};
