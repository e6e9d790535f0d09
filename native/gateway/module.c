/* How Envoy asks and is answered: HTTP filters behind Envoy's C interface for dynamic modules, version 0.2.0 as in
 * Envoy 1.40. "limits" refuses or holds back what comes too fast; "consumers" says who a credential is. Their
 * configuration is text, a line a word with its value (parse_line, consumers.h). A filter that waits holds its
 * stream back without holding back its worker. Filters of another kind (envoy.h) are files of their own. */
#include "consumers.h"
#include "envoy.h"
#include "limits.h"
#include "timer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SOURCE_ADDRESS = 24 }; /* source.address, in the order of Envoy's attributes */
enum { MAX_LIMITS = 32, MAX_LABEL = 12, MAX_TOLD = 48, MAX_BODY = 512, MAX_HEADER = 64, MAX_KEYS_OF_ONE = 3, MAX_KEY = 256, MAX_HELD = 4 };

/* Which headers tell a client about its limit. */
typedef enum { PLAIN, KONG, TRAEFIK, SILENT } style;

typedef struct {
    rule r;
    state *s;
    style tells;
    uint32_t status;
    char told[MAX_PERIODS][2][MAX_TOLD];        /* Kong's headers: the limit of a minute, an hour, what remains of it */
    char keys[MAX_KEYS_OF_ONE][MAX_HEADER];     /* request headers, @client, @forwarded N (both with /BITS of an IPv6 address): the first that is there counts */
    char when[2][MAX_HEADER];                   /* a request header and its value: the limit is for these only */
    int choice;                                 /* not 0: of the limits with one number, only the first that is meant */
    char body[MAX_BODY];                        /* @ID@ stands for the request's id */
} limit;

/* Of the filter "limits", of the filter "consumers", or of another kind. */
typedef struct {
    int n;
    limit limits[MAX_LIMITS];
    consumers *known;
    const kind *other;
    void *others;
} config;

typedef struct {
    const config *c;
    void *others; /* what another kind has of this stream */
    struct {
        state *s;
        size_t length;
        char key[MAX_KEY];
    } held[MAX_HELD]; /* what is given back when the stream ends */
    int n_held;
    int asked; /* how many limits have decided */
    int which[MAX_LIMITS];
    verdict verdicts[MAX_LIMITS];
    waiter *waiting;
} filter;

/* --- configuration ------------------------------------------------------------------------------------------ */

static bool copy(char *to, size_t room, const char *from)
{
    const size_t n = strlen(from);
    if (n >= room)
        return false;
    memcpy(to, from, n + 1);
    return true;
}

/* A backslash and an n stand for a line's end. */
static bool copy_lines(char *to, size_t room, const char *from)
{
    for (; *from && room > 1; room--, from++)
        *to++ = from[0] == '\\' && from[1] == 'n' ? (from++, '\n') : *from;
    *to = 0;
    return !*from;
}

static bool begin_limit(config *c, const char *name)
{
    if (c->n == MAX_LIMITS)
        return false;
    limit *l = &c->limits[c->n++];
    l->status = 429;
    l->r.burst = 1;
    l->r.max_keys = 65536;
    l->r.counts_refused = true;
    strcpy(l->body, "{\"message\":\"Too many requests\"}");
    return copy(l->r.name, sizeof l->r.name, name);
}

static bool add_period(limit *l, const char *value)
{
    long long ms = 0;
    unsigned long most = 0;
    char label[MAX_LABEL] = "";
    const int i = l->r.n_periods;
    if (i == MAX_PERIODS || sscanf(value, "%lld %lu %11s", &ms, &most, label) < 2 || ms <= 0 || !most)
        return false;
    l->r.periods[i] = (period){ms * 1000, (uint32_t)most};
    snprintf(l->told[i][0], MAX_TOLD, "x-ratelimit-limit-%s", label);
    snprintf(l->told[i][1], MAX_TOLD, "x-ratelimit-remaining-%s", label);
    l->r.n_periods++;
    return true;
}

static bool add_key(limit *l, const char *name)
{
    for (int i = 0; i < MAX_KEYS_OF_ONE; i++)
        if (!l->keys[i][0])
            return copy(l->keys[i], MAX_HEADER, name);
    return false;
}

static int word_of(const char *value, const char *const *words, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(value, words[i]))
            return i;
    return -1;
}

static bool parse_line(void *into, const char *word, const char *value)
{
    config *c = into;
    static const char *const hows[] = {"gcra", "sliding", "calendar", "in_flight"};
    static const char *const styles[] = {"plain", "kong", "traefik", "silent"};
    if (!strcmp(word, "limit"))
        return begin_limit(c, value);
    if (!c->n)
        return false;
    limit *l = &c->limits[c->n - 1];
    int found;
    if (!strcmp(word, "how"))
        return (found = word_of(value, hows, 4)) >= 0 && (l->r.how = (algorithm)found, true);
    if (!strcmp(word, "tells"))
        return (found = word_of(value, styles, 4)) >= 0 && (l->tells = (style)found, true);
    if (!strcmp(word, "period"))
        return add_period(l, value);
    if (!strcmp(word, "key"))
        return add_key(l, value);
    if (!strcmp(word, "burst"))
        return (l->r.burst = (uint32_t)strtoul(value, NULL, 10)) > 0;
    if (!strcmp(word, "max_delay_ms"))
        return (l->r.max_delay_us = atoll(value) * 1000) >= 0;
    if (!strcmp(word, "max_keys"))
        return (l->r.max_keys = (uint32_t)strtoul(value, NULL, 10)) > 0;
    if (!strcmp(word, "status"))
        return (l->status = (uint32_t)strtoul(value, NULL, 10)) >= 400;
    if (!strcmp(word, "refused"))
        return (l->r.counts_refused = !strcmp(value, "count")), true;
    if (!strcmp(word, "choice"))
        return (l->choice = atoi(value)) > 0;
    if (!strcmp(word, "when")) {
        const char *space = strchr(value, ' ');
        return space && copy(l->when[1], MAX_HEADER, space + 1) && space - value < MAX_HEADER &&
               memcpy(l->when[0], value, (size_t)(space - value));
    }
    if (!strcmp(word, "body"))
        return copy_lines(l->body, MAX_BODY, value);
    return false;
}

static void config_free(config *c)
{
    for (int i = 0; i < c->n; i++)
        if (c->limits[i].s)
            state_give_back(c->limits[i].s);
    consumers_free(c->known);
    if (c->others)
        c->other->config_free(c->others);
    free(c);
}

static const kind *kind_of(text name)
{
    static const kind *const kinds[] = {&ANSWERS, &BREAKER, &ADDRESSES, &REROUTE};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (same(name, kinds[i]->name))
            return kinds[i];
    return NULL;
}

/* Who is who may stand before the first limit: one filter does both. What is left of the lines. */
static char *known_of(config *c, char *lines)
{
    char *limits = strstr(lines, "\nlimit ");
    if (strncmp(lines, "from ", 5) || !limits)
        return lines;
    *limits = 0;
    c->known = consumers_of(lines);
    return limits + 1;
}

/* NULL refuses the configuration: Envoy keeps the one it has. */
static config *config_of(text name, text said)
{
    config *c = calloc(1, sizeof *c);
    char *lines = malloc(said.length + 1);
    bool good = c && lines;
    if (good) {
        memcpy(lines, said.at, said.length);
        lines[said.length] = 0;
    }
    if (good && (c->other = kind_of(name)))
        good = (c->others = c->other->config(lines)) != NULL;
    else if (good && same(name, "consumers"))
        good = (c->known = consumers_of(lines)) != NULL;
    else if (good) {
        good = each_line(known_of(c, lines), parse_line, c);
        for (int i = 0; good && i < c->n; i++)
            good = c->limits[i].r.n_periods > 0 && (c->limits[i].s = state_of(&c->limits[i].r)) != NULL;
    }
    free(lines);
    if (!good && c) {
        config_free(c);
        c = NULL;
    }
    return c;
}

const char *HOOK(program_init)(void) { return "v0.2.0"; }
void *HOOK(http_filter_config_new)(void *envoy, text name, text said)
{
    (void)envoy;
    return config_of(name, said);
}
void HOOK(http_filter_config_destroy)(void *c) { config_free(c); }
void *HOOK(http_filter_per_route_config_new)(text name, text said)
{
    return config_of(name, said);
}
void HOOK(http_filter_per_route_config_destroy)(void *c) { config_free(c); }

/* --- one request ----------------------------------------------------------------------------------------------- */

static int64_t wall_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

/* The client's address as the listener sees it, without a port. */
static text client_of(void *envoy)
{
    text value = {"", 0};
    if (!ENVOY(http_filter_get_attribute_string)(envoy, SOURCE_ADDRESS, &value))
        return (text){"", 0};
    const char *colon = memchr(value.at, ':', value.length);
    if (colon && value.at[0] == '[')
        for (colon = value.at + value.length; *--colon != ':';)
            ;
    else if (colon && memchr(colon + 1, ':', (size_t)(value.at + value.length - colon - 1)))
        colon = NULL; /* an IPv6 address alone */
    return (text){value.at, colon ? (size_t)(colon - value.at) : value.length};
}

static text value_of(void *envoy, const char *key)
{
    static const char forwarded[] = "@forwarded ";
    if (!strncmp(key, forwarded, sizeof forwarded - 1))
        return forwarded_at(envoy, atoi(key + sizeof forwarded - 1));
    return key[0] == '@' ? client_of(envoy) : get(envoy, REQUEST, key);
}

/* An IPv6 address cut to the first bits that count; any other text is left alone. */
static text cut(text value, int bits, char room[INET6_ADDRSTRLEN])
{
    uint8_t bytes[16];
    if (value.length && value.at[0] == '[')
        value = (text){value.at + 1, value.length - 2};
    if (!memchr(value.at, ':', value.length) || value.length >= INET6_ADDRSTRLEN)
        return value;
    memcpy(room, value.at, value.length);
    room[value.length] = 0;
    if (inet_pton(AF_INET6, room, bytes) != 1)
        return value;
    for (int i = 0; i < 16; i++) {
        const int left = bits - 8 * i;
        bytes[i] &= left >= 8 ? 0xff : left <= 0 ? 0 : (uint8_t)(0xff << (8 - left));
    }
    inet_ntop(AF_INET6, bytes, room, INET6_ADDRSTRLEN);
    return (text){room, strlen(room)};
}

/* Which header named the client is part of the key: an API key that looks like an address is no address. */
static size_t key_of(void *envoy, const limit *l, char *key, size_t room)
{
    for (int i = 0; i < MAX_KEYS_OF_ONE && l->keys[i][0]; i++) {
        text value = value_of(envoy, l->keys[i]);
        if (!value.length)
            continue;
        char first[INET6_ADDRSTRLEN];
        const char *bits = l->keys[i][0] == '@' ? strchr(l->keys[i], '/') : NULL;
        if (bits)
            value = cut(value, atoi(bits + 1), first);
        const size_t n = value.length < room - 1 ? value.length : room - 1;
        key[0] = (char)('0' + i);
        memcpy(key + 1, value.at, n);
        return n + 1;
    }
    return 0;
}

static bool meant(void *envoy, const limit *l)
{
    if (!l->when[0][0])
        return true;
    const text value = get(envoy, REQUEST, l->when[0]);
    return value.length == strlen(l->when[1]) && !memcmp(value.at, l->when[1], value.length);
}

static const char ANONYMOUS[] = "x-anonymous-consumer";

static void told(void *envoy, const char *const *values)
{
    for (int i = 0; i < CONSUMER_FIELDS; i++)
        if (values[i][0])
            ENVOY(http_set_header)(envoy, REQUEST, TEXT(CONSUMER_HEADERS[i]), TEXT(values[i]));
}

/* Somebody else than was told before: what is empty of him must not be the other's. */
static void told_anew(void *envoy, const char *const *values)
{
    for (int i = 0; i < CONSUMER_FIELDS; i++)
        if (!values[i][0] && get(envoy, REQUEST, CONSUMER_HEADERS[i]).length)
            ENVOY(http_set_header)(envoy, REQUEST, TEXT(CONSUMER_HEADERS[i]), (text){NULL, 0});
    told(envoy, values);
}

/* What the backend is told of who asks; whatever the client itself said there is gone already. Ways in that let
 * everybody pass are alternatives: the first that knows who it is decides. */
static void name_consumer(void *envoy, const consumers *known)
{
    const char *const *otherwise = consumers_otherwise(known);
    const bool nobody = otherwise && get(envoy, REQUEST, ANONYMOUS).length > 0;
    if (otherwise && !nobody && get(envoy, REQUEST, CONSUMER_HEADERS[0]).length)
        return;
    const char *const *values = NULL;
    const char *name;
    for (int i = 0; !values && (name = consumers_header(known, i)); i++) {
        const text credential = get(envoy, REQUEST, name);
        if (credential.length) {
            values = consumers_find(known, credential.at, credential.length);
            break;
        }
    }
    if (values && nobody) {
        ENVOY(http_set_header)(envoy, REQUEST, TEXT(ANONYMOUS), (text){NULL, 0});
        told_anew(envoy, values);
    } else if (values)
        told(envoy, values);
    else if (otherwise && !nobody) {
        told(envoy, otherwise);
        set(envoy, REQUEST, ANONYMOUS, "true");
    }
}

static long long seconds(int64_t us) { return us > 0 ? (us + 999999) / 1000000 : 0; }

static long long at_least_one(int64_t us)
{
    const long long s = seconds(us);
    return s ? s : 1;
}

enum { MAX_SAID = 2 * MAX_PERIODS + 6, MAX_NUMBER = 24 };

typedef struct {
    int n;
    header list[MAX_SAID];
    char numbers[MAX_SAID][MAX_NUMBER];
} headers;

/* A number that is not negative, with its unit. By hand: printf takes its time, five times for each answer. The name
 * stays where it is. */
static void say(headers *h, const char *name, long long value, const char *unit)
{
    char *const end = h->numbers[h->n] + MAX_NUMBER - strlen(unit), *at = end;
    memcpy(end, unit, strlen(unit));
    unsigned long long rest = value > 0 ? (unsigned long long)value : 0;
    do
        *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    h->list[h->n++] = (header){name, strlen(name), at, (size_t)(end - at) + strlen(unit)};
}

static void say_kongs(headers *h, const limit *l, const verdict *v)
{
    for (int i = 0; i < l->r.n_periods; i++) {
        say(h, l->told[i][0], l->r.periods[i].limit, "");
        say(h, l->told[i][1], v->remaining[i], "");
    }
}

/* What the client is told of this limit, with every answer and with a refusal. */
static void tell(headers *h, const limit *l, const verdict *v)
{
    const int t = v->tightest;
    if (l->tells == KONG)
        say_kongs(h, l, v);
    if (l->tells == KONG || l->tells == PLAIN) {
        say(h, "ratelimit-limit", l->r.periods[t].limit, "");
        say(h, "ratelimit-remaining", v->remaining[t], "");
        say(h, "ratelimit-reset", at_least_one(v->reset_us[t]), "");
    }
    if (!v->ok && l->tells != SILENT)
        say(h, "retry-after", at_least_one(v->retry_us), "");
    if (!v->ok && l->tells == TRAEFIK)
        say(h, "x-retry-in", (v->retry_us + 999) / 1000, "ms");
}

static void refuse(void *envoy, const limit *l, const verdict *v)
{
    headers h;
    h.n = 0;
    char body[MAX_BODY + 64];
    const char *mark = strstr(l->body, "@ID@");
    const text id = get(envoy, REQUEST, "x-request-id");
    if (mark)
        snprintf(body, sizeof body, "%.*s%.*s%s", (int)(mark - l->body), l->body,
                 (int)(id.length < 60 ? id.length : 60), id.at, mark + 4);
    else
        snprintf(body, sizeof body, "%s", l->body);
    tell(&h, l, v);
    const char *type = body[0] == '{' ? "application/json; charset=utf-8" : "text/plain; charset=utf-8";
    h.list[h.n++] = (header){"content-type", 12, type, strlen(type)};
    ENVOY(http_send_response)(envoy, l->status, h.list, (size_t)h.n, TEXT(body), TEXT("skylift_limit"));
}

void *HOOK(http_filter_new)(const void *c, void *envoy)
{
    (void)envoy;
    filter *f = malloc(sizeof *f); /* most of it is room that few requests need: only what is read first is cleared */
    if (f) {
        f->c = c;
        f->others = NULL;
        f->waiting = NULL;
        f->n_held = f->asked = 0;
        if (f->c->other)
            f->others = f->c->other->begin();
    }
    return f;
}

void HOOK(http_filter_destroy)(filter *f)
{
    if (f->waiting)
        timer_forget(f->waiting);
    if (f->others)
        f->c->other->end(f->others, f->c->others);
    for (int i = 0; i < f->n_held; i++)
        leave(f->held[i].s, f->held[i].key, f->held[i].length);
    free(f);
}

int HOOK(http_filter_request_headers)(void *envoy, filter *f, bool last)
{
    (void)last;
    const config *of_route = ENVOY(get_most_specific_route_config)(envoy);
    if (of_route)
        f->c = of_route;
    if (f->c->other)
        return f->others ? f->c->other->request(envoy, f->others, f->c->others) : GO_ON;
    if (f->c->known)
        name_consumer(envoy, f->c->known);
    if (!f->c->n)
        return GO_ON;
    const int64_t mono = now_us(), wall = wall_us();
    int64_t delay = 0;
    int chosen = 0;
    for (int i = 0; i < f->c->n; i++) {
        const limit *l = &f->c->limits[i];
        if ((l->choice && l->choice == chosen) || !meant(envoy, l))
            continue;
        chosen = l->choice;
        char key[MAX_KEY];
        const size_t n = key_of(envoy, l, key, sizeof key);
        const verdict v = arrive(l->s, &l->r, key, n, mono, wall);
        if (v.ok && l->r.how == IN_FLIGHT && f->n_held < MAX_HELD) {
            f->held[f->n_held].s = l->s;
            f->held[f->n_held].length = n;
            memcpy(f->held[f->n_held++].key, key, n);
        }
        if (!v.ok) {
            f->asked = 0; /* the refusal says it all; what earlier limits counted stays counted */
            refuse(envoy, l, &v);
            return STOP;
        }
        f->which[f->asked] = i;
        f->verdicts[f->asked++] = v;
        if (v.delay_us > delay)
            delay = v.delay_us;
    }
    if (delay <= 0)
        return GO_ON;
    f->waiting = timer_wait(ENVOY(http_filter_scheduler_new)(envoy), mono + delay);
    return f->waiting ? STOP_AND_HOLD_BODY : GO_ON;
}

void HOOK(http_filter_scheduled)(void *envoy, filter *f, uint64_t event)
{
    (void)event;
    timer_forget(f->waiting);
    f->waiting = NULL;
    ENVOY(http_filter_continue_decoding)(envoy);
}

int HOOK(http_filter_response_headers)(void *envoy, filter *f, bool last)
{
    if (f->c->other)
        return f->others ? f->c->other->response(envoy, f->others, f->c->others, last) : GO_ON;
    for (int i = 0; i < f->asked; i++) {
        headers h;
        h.n = 0;
        tell(&h, &f->c->limits[f->which[i]], &f->verdicts[i]);
        for (int k = 0; k < h.n; k++)
            ENVOY(http_set_header)(envoy, RESPONSE, (text){h.list[k].name, h.list[k].name_length},
                                   (text){h.list[k].value, h.list[k].value_length});
    }
    return GO_ON;
}

int HOOK(http_filter_response_body)(void *envoy, filter *f, bool last)
{
    return f->others && f->c->other->body ? f->c->other->body(envoy, f->others, f->c->others, last) : GO_ON;
}

int HOOK(http_filter_response_trailers)(void *envoy, filter *f)
{
    return HOOK(http_filter_response_body)(envoy, f, true);
}

int HOOK(http_filter_local_reply)(void *envoy, filter *f, uint32_t status, text details, bool reset)
{
    (void)envoy, (void)details, (void)reset;
    if (f->others && f->c->other->failed)
        f->c->other->failed(f->others, status);
    return GO_ON;
}

/* --- what Envoy asks for and this filter has no part in -------------------------------------------------------- */

#define NO_PART_VOID(name, ...) void HOOK(name)(__VA_ARGS__) {}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
int HOOK(http_filter_request_body)(void *e, void *f, bool last) { return GO_ON; }
int HOOK(http_filter_request_trailers)(void *e, void *f) { return GO_ON; }
NO_PART_VOID(http_filter_stream_complete, void *e, void *f)
NO_PART_VOID(http_filter_http_callout_done, void *e, void *f, uint64_t i, int r, void *h, size_t n, void *b, size_t m)
NO_PART_VOID(http_filter_http_stream_headers, void *e, void *f, uint64_t i, void *h, size_t n, bool last)
NO_PART_VOID(http_filter_http_stream_data, void *e, void *f, uint64_t i, const void *d, size_t n, bool last)
NO_PART_VOID(http_filter_http_stream_trailers, void *e, void *f, uint64_t i, void *h, size_t n)
NO_PART_VOID(http_filter_http_stream_complete, void *e, void *f, uint64_t i)
NO_PART_VOID(http_filter_http_stream_reset, void *e, void *f, uint64_t i, int r)
NO_PART_VOID(http_filter_config_scheduled, void *e, void *f, uint64_t i)
NO_PART_VOID(http_filter_config_http_callout_done, void *e, void *f, uint64_t i, int r, void *h, size_t n, void *b,
             size_t m)
NO_PART_VOID(http_filter_config_http_stream_headers, void *e, void *f, uint64_t i, void *h, size_t n, bool last)
NO_PART_VOID(http_filter_config_http_stream_data, void *e, void *f, uint64_t i, const void *d, size_t n, bool last)
NO_PART_VOID(http_filter_config_http_stream_trailers, void *e, void *f, uint64_t i, void *h, size_t n)
NO_PART_VOID(http_filter_config_http_stream_complete, void *e, void *f, uint64_t i)
NO_PART_VOID(http_filter_config_http_stream_reset, void *e, void *f, uint64_t i, int r)
NO_PART_VOID(http_filter_downstream_above_write_buffer_high_watermark, void *e, void *f)
NO_PART_VOID(http_filter_downstream_below_write_buffer_low_watermark, void *e, void *f)
#pragma GCC diagnostic pop
