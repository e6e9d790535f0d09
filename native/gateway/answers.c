/* Answers that are kept: a cache that serves them while they are fresh, and the last good one that is served again
 * while a backend fails. One store a policy, shared by all workers; a reload that keeps the policy's name keeps what
 * is in it. The oldest gives way. An answer that sets cookies is somebody's own and never kept.
 *
 *   keep cache|stale   for SECONDS   entries N   max_bytes N   name STORE
 *   status LOW HIGH        which answers are kept (cache), or replaced (stale)
 *   method GET   type application/json   key HEADER   query NAME   plain_query
 *   obey                   Cache-Control of both sides is obeyed, and requests with credentials are passed by
 *   tells                  X-Cache-Status and X-Cache-Key
 */
#include "envoy.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_WORDS = 16, MAX_WORD = 64, SLOTS = 1024, MAX_STORE_BYTES = 64 << 20 };

typedef struct answer {
    struct answer *next;         /* of the same slot */
    struct answer *newer, *older; /* by when it was kept */
    uint64_t hash;
    char *key;
    size_t key_length;
    uint32_t status;
    size_t n; /* headers, one behind the other: name, a zero, value, a zero */
    char *headers;
    size_t headers_length;
    char *body;
    size_t body_length;
    int64_t at_us;
} answer;

typedef struct store {
    struct store *next;
    char name[MAX_WORD];
    pthread_mutex_t lock;
    answer *slots[SLOTS];
    answer *newest, *oldest;
    size_t count, bytes;
} store;

typedef struct {
    int n;
    char list[MAX_WORDS][MAX_WORD];
} words;

typedef struct {
    bool stale, obeys, tells, plain_query;
    char name[MAX_WORD];
    int64_t for_us;
    size_t entries, max_bytes;
    uint32_t low[MAX_WORDS], high[MAX_WORDS];
    int n_statuses;
    words methods, types, keys, query;
    store *kept;
} config;

typedef struct {
    char *key;
    size_t key_length;
    bool good;      /* what comes is to be kept */
    bool replacing; /* what comes is dropped, `served` goes instead */
    bool hit;
    const char *told; /* X-Cache-Status */
    answer *fresh;    /* being gathered */
    answer *served;   /* a copy */
} stream;

/* --- the store ---------------------------------------------------------------------------------------------- */

static pthread_mutex_t stores_lock = PTHREAD_MUTEX_INITIALIZER;
static store *stores; /* they stay: a name that is gone costs what is in it, bounded, until the process ends */

static store *store_of(const char *name)
{
    pthread_mutex_lock(&stores_lock);
    store *s = stores;
    while (s && strcmp(s->name, name))
        s = s->next;
    if (!s && (s = calloc(1, sizeof *s))) {
        snprintf(s->name, sizeof s->name, "%s", name);
        pthread_mutex_init(&s->lock, NULL);
        s->next = stores;
        stores = s;
    }
    pthread_mutex_unlock(&stores_lock);
    return s;
}

static void answer_free(answer *a)
{
    if (!a)
        return;
    free(a->key);
    free(a->headers);
    free(a->body);
    free(a);
}

static size_t size_of(const answer *a) { return sizeof *a + a->key_length + a->headers_length + a->body_length; }

static uint64_t hash_of(const char *key, size_t n)
{
    uint64_t h = 1469598103934665603ULL; /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)key[i]) * 1099511628211ULL;
    return h;
}

static answer **find(store *s, uint64_t h, const char *key, size_t n)
{
    answer **at = &s->slots[h % SLOTS];
    while (*at && ((*at)->hash != h || (*at)->key_length != n || memcmp((*at)->key, key, n)))
        at = &(*at)->next;
    return at;
}

static void take_out(store *s, answer **at)
{
    answer *a = *at;
    *at = a->next;
    *(a->newer ? &a->newer->older : &s->newest) = a->older;
    *(a->older ? &a->older->newer : &s->oldest) = a->newer;
    s->count--;
    s->bytes -= size_of(a);
    answer_free(a);
}

/* Takes the answer over. */
static void keep(const config *c, answer *a)
{
    store *s = c->kept;
    a->hash = hash_of(a->key, a->key_length);
    pthread_mutex_lock(&s->lock);
    answer **at = find(s, a->hash, a->key, a->key_length);
    if (*at)
        take_out(s, at);
    while (s->oldest && (s->count >= c->entries || s->bytes + size_of(a) > MAX_STORE_BYTES))
        take_out(s, find(s, s->oldest->hash, s->oldest->key, s->oldest->key_length));
    a->next = s->slots[a->hash % SLOTS];
    s->slots[a->hash % SLOTS] = a;
    a->newer = NULL;
    a->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = a;
    s->newest = a;
    s->count++;
    s->bytes += size_of(a);
    pthread_mutex_unlock(&s->lock);
}

static char *copied(const char *from, size_t n)
{
    char *to = malloc(n ? n : 1);
    if (to && n)
        memcpy(to, from, n);
    return to;
}

/* A copy of what is kept, not older than `most_us`; `*old` when there is one, but older. */
static answer *found(const config *c, const stream *f, int64_t most_us, bool *old)
{
    store *s = c->kept;
    answer *copy = NULL;
    pthread_mutex_lock(&s->lock);
    const answer *a = *find(s, hash_of(f->key, f->key_length), f->key, f->key_length);
    if (a && now_us() - a->at_us > most_us) {
        *old = true;
        a = NULL;
    }
    if (a && (copy = malloc(sizeof *copy))) {
        *copy = *a;
        copy->key = NULL;
        copy->headers = copied(a->headers, a->headers_length);
        copy->body = copied(a->body, a->body_length);
        if (!copy->headers || !copy->body) {
            answer_free(copy);
            copy = NULL;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return copy;
}

/* --- configuration -------------------------------------------------------------------------------------------- */

static bool add_word(words *w, const char *value)
{
    return w->n < MAX_WORDS && strlen(value) < MAX_WORD && strcpy(w->list[w->n++], value);
}

static bool add_status(config *c, const char *value)
{
    const int i = c->n_statuses;
    if (i == MAX_WORDS || sscanf(value, "%u %u", &c->low[i], &c->high[i]) != 2)
        return false;
    c->n_statuses++;
    return true;
}

static bool parse(void *into, const char *word, const char *value)
{
    config *c = into;
    if (!strcmp(word, "keep"))
        return (c->stale = !strcmp(value, "stale")), true;
    if (!strcmp(word, "name"))
        return snprintf(c->name, sizeof c->name, "%s", value) < (int)sizeof c->name;
    if (!strcmp(word, "for"))
        return (c->for_us = (int64_t)(atof(value) * 1e6)) > 0;
    if (!strcmp(word, "entries"))
        return (c->entries = strtoul(value, NULL, 10)) > 0;
    if (!strcmp(word, "max_bytes"))
        return (c->max_bytes = strtoul(value, NULL, 10)) > 0;
    if (!strcmp(word, "status"))
        return add_status(c, value);
    if (!strcmp(word, "method"))
        return add_word(&c->methods, value);
    if (!strcmp(word, "type"))
        return add_word(&c->types, value);
    if (!strcmp(word, "key"))
        return add_word(&c->keys, value);
    if (!strcmp(word, "query"))
        return add_word(&c->query, value);
    if (!strcmp(word, "plain_query"))
        return c->plain_query = true;
    if (!strcmp(word, "obey"))
        return c->obeys = true;
    if (!strcmp(word, "tells"))
        return c->tells = true;
    return false;
}

static void *configure(char *lines)
{
    config *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->entries = 500;
    c->max_bytes = 256 * 1024;
    c->for_us = 1;
    bool good = each_line(lines, parse, c);
    if (good && c->name[0])
        good = (c->kept = store_of(c->name)) != NULL;
    if (good)
        return c;
    free(c);
    return NULL;
}

static void configure_free(void *c) { free(c); }

/* --- one request ------------------------------------------------------------------------------------------------- */

static bool has(const words *w, text value)
{
    for (int i = 0; i < w->n; i++)
        if (same(value, w->list[i]))
            return true;
    return false;
}

/* Whether one of a header's words, between commas, is this one. */
static bool says(text header, const char *word)
{
    const size_t n = strlen(word);
    for (size_t i = 0; i + n <= header.length; i++) {
        const bool begins = !i || strchr(" ,;", header.at[i - 1]);
        const bool ends = i + n == header.length || strchr(" ,;=", header.at[i + n]);
        if (begins && ends && !strncasecmp(header.at + i, word, n))
            return true;
    }
    return false;
}

typedef struct {
    char *at;
    size_t length, room;
} buffer;

static void put(buffer *b, const char *more, size_t n)
{
    if (b->length + n > b->room) {
        const size_t room = (b->room + n) * 2;
        char *fresh = realloc(b->at, room);
        if (!fresh)
            return;
        b->at = fresh;
        b->room = room;
    }
    memcpy(b->at + b->length, more, n);
    b->length += n;
}

static void put_text(buffer *b, text value)
{
    put(b, value.at, value.length);
    put(b, "", 1);
}

static int by_text(const void *a, const void *b)
{
    const text *x = a, *y = b;
    const size_t n = x->length < y->length ? x->length : y->length;
    const int order = memcmp(x->at, y->at, n);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

/* The parameters in the order of their text, those that count. */
static void put_query(buffer *b, const config *c, const char *at, size_t n)
{
    enum { MAX_PARAMETERS = 64 };
    text parts[MAX_PARAMETERS];
    int count = 0;
    for (size_t begin = 0, i = 0; i <= n && count < MAX_PARAMETERS; i++) {
        if (i < n && at[i] != '&')
            continue;
        const text part = {at + begin, i - begin};
        const char *equals = memchr(part.at, '=', part.length);
        const text name = {part.at, equals ? (size_t)(equals - part.at) : part.length};
        if (part.length && (!c->query.n || has(&c->query, name)))
            parts[count++] = part;
        begin = i + 1;
    }
    qsort(parts, (size_t)count, sizeof *parts, by_text);
    for (int i = 0; i < count; i++)
        put_text(b, parts[i]);
}

/* Whoever asks for the same in another's name, host or variant asks for something else. */
static void make_key(void *envoy, const config *c, stream *f, text method)
{
    buffer b = {0};
    const text path = get(envoy, REQUEST, ":path"), who = get(envoy, REQUEST, "x-consumer-username");
    put_text(&b, method);
    put_text(&b, who.length || c->obeys ? who : get(envoy, REQUEST, "authorization"));
    put_text(&b, get(envoy, REQUEST, ":authority"));
    const char *query = memchr(path.at, '?', path.length);
    const size_t plain = query ? (size_t)(query - path.at) : path.length;
    put_text(&b, (text){path.at, plain});
    if (query && c->plain_query)
        put_text(&b, (text){query, path.length - plain});
    else if (query)
        put_query(&b, c, query + 1, path.length - plain - 1);
    for (int i = 0; i < c->keys.n; i++)
        put_text(&b, get(envoy, REQUEST, c->keys.list[i]));
    f->key = b.at;
    f->key_length = b.length;
}

static void *begin(void) { return calloc(1, sizeof(stream)); }

static void end(void *s, const void *c)
{
    (void)c;
    stream *f = s;
    free(f->key);
    answer_free(f->fresh);
    answer_free(f->served);
    free(f);
}

static void serve(void *envoy, const config *c, const stream *f)
{
    const answer *a = f->served;
    header *list = calloc(a->n + 4, sizeof *list);
    char age[24], key[24];
    size_t n = 0;
    if (!list)
        return;
    for (const char *at = a->headers; n < a->n;) {
        const size_t name = strlen(at), value = strlen(at + name + 1);
        list[n++] = (header){at, name, at + name + 1, value};
        at += name + value + 2;
    }
    snprintf(age, sizeof age, "%lld", (long long)((now_us() - a->at_us) / 1000000));
    list[n++] = (header){"age", 3, age, strlen(age)};
    if (c->tells) {
        snprintf(key, sizeof key, "%016llx", (unsigned long long)hash_of(f->key, f->key_length));
        list[n++] = (header){"x-cache-status", 14, "Hit", 3};
        list[n++] = (header){"x-cache-key", 11, key, strlen(key)};
    }
    ENVOY(http_send_response)(envoy, a->status, list, n, (text){a->body, a->body_length}, TEXT("skylift_kept"));
    free(list);
}

static int request(void *envoy, void *s, const void *config_)
{
    const config *c = config_;
    stream *f = s;
    const text method = get(envoy, REQUEST, ":method");
    if (!c->kept || !has(&c->methods, method))
        return f->told = "Bypass", GO_ON;
    const text wants = get(envoy, REQUEST, "cache-control");
    const bool passes_by = c->obeys && (says(wants, "no-store") || get(envoy, REQUEST, "authorization").length);
    if (passes_by)
        return f->told = "Bypass", GO_ON;
    make_key(envoy, c, f, method);
    f->told = "Miss";
    if (c->stale || !f->key)
        return GO_ON;
    bool old = c->obeys && says(wants, "no-cache");
    if (!old && (f->served = found(c, f, c->for_us, &old))) {
        f->hit = true;
        serve(envoy, c, f);
        return STOP;
    }
    if (old)
        f->told = "Refresh";
    return GO_ON;
}

static bool in_range(const config *c, uint32_t status)
{
    for (int i = 0; i < c->n_statuses; i++)
        if (c->low[i] <= status && status <= c->high[i])
            return true;
    return false;
}

/* `application/json` takes the type with whatever parameters, a star any. */
static bool of_type(const config *c, text type)
{
    for (int i = 0; i < c->types.n; i++) {
        const char *wanted = c->types.list[i];
        const size_t n = strlen(wanted);
        if (!strcmp(wanted, "*/*") || (type.length >= n && !strncasecmp(type.at, wanted, n) &&
                                       (type.length == n || strchr("; ", type.at[n]))))
            return true;
    }
    return !c->types.n;
}

static bool may_keep(void *envoy, const config *c, uint32_t status)
{
    const text control = get(envoy, RESPONSE, "cache-control");
    if (get(envoy, RESPONSE, "set-cookie").length || says(control, "no-store"))
        return false;
    if (c->stale)
        return status == 200;
    if (c->obeys && (says(control, "private") || says(control, "no-cache")))
        return false;
    return in_range(c, status) && of_type(c, get(envoy, RESPONSE, "content-type"));
}

static bool of_the_connection(text name)
{
    static const char *const names[] = {"connection", "keep-alive", "transfer-encoding", "content-length", "date",
                                        "upgrade",    "trailer",    "te",                "server",         "age"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (same(name, names[i]))
            return true;
    return name.length && name.at[0] == ':';
}

static answer *gathered(void *envoy, uint32_t status)
{
    const size_t count = ENVOY(http_get_headers_size)(envoy, RESPONSE);
    answer *a = calloc(1, sizeof *a);
    header *all = calloc(count ? count : 1, sizeof *all);
    buffer b = {0};
    if (a && all && ENVOY(http_get_headers)(envoy, RESPONSE, all)) {
        for (size_t i = 0; i < count; i++) {
            const text name = {all[i].name, all[i].name_length};
            if (of_the_connection(name))
                continue;
            put_text(&b, name);
            put_text(&b, (text){all[i].value, all[i].value_length});
            a->n++;
        }
        a->status = status;
        a->headers = b.at ? b.at : calloc(1, 1);
        a->headers_length = b.length;
        a->at_us = now_us();
    }
    free(all);
    return a;
}

static void done(const config *c, stream *f)
{
    answer *a = f->fresh;
    f->fresh = NULL;
    a->key = copied(f->key, f->key_length);
    a->key_length = f->key_length;
    if (!a->body)
        a->body = calloc(1, 1);
    if (a->key && a->headers && a->body)
        keep(c, a);
    else
        answer_free(a);
}

/* The last good answer in the place of a failed one. Without a body to replace there is nothing to hang it on: then
 * it is sent as Envoy's own. */
static int replace(void *envoy, const config *c, stream *f, bool last)
{
    char number[24];
    const answer *a = f->served;
    if (last) {
        f->hit = true;
        serve(envoy, c, f);
        return STOP;
    }
    f->replacing = true;
    snprintf(number, sizeof number, "%u", a->status);
    set(envoy, RESPONSE, ":status", number);
    static const char *const gone[] = {"content-encoding", "etag", "last-modified", "cache-control", "retry-after"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        ENVOY(http_set_header)(envoy, RESPONSE, TEXT(gone[i]), (text){NULL, 0}); /* the failed answer's own */
    size_t n = 0;
    for (const char *at = a->headers; n < a->n; n++) {
        const size_t name = strlen(at);
        set(envoy, RESPONSE, at, at + name + 1);
        at += name + strlen(at + name + 1) + 2;
    }
    snprintf(number, sizeof number, "%zu", a->body_length);
    set(envoy, RESPONSE, "content-length", number);
    snprintf(number, sizeof number, "%lld", (long long)((now_us() - a->at_us) / 1000000));
    set(envoy, RESPONSE, "age", number);
    set(envoy, RESPONSE, "warning", "111 - \"Revalidation Failed\"");
    return GO_ON;
}

static int response(void *envoy, void *s, const void *config_, bool last)
{
    const config *c = config_;
    stream *f = s;
    if (f->hit)
        return GO_ON;
    const text shown = get(envoy, RESPONSE, ":status");
    const uint32_t status = shown.length == 3 ? (uint32_t)atoi((char[]){shown.at[0], shown.at[1], shown.at[2], 0}) : 0;
    bool old = false;
    if (c->stale && f->key && in_range(c, status) && (f->served = found(c, f, c->for_us, &old)))
        return replace(envoy, c, f, last);
    f->good = f->key && may_keep(envoy, c, status);
    if (f->good && (f->fresh = gathered(envoy, status)) && last)
        done(c, f);
    if (c->tells)
        set(envoy, RESPONSE, "x-cache-status", f->good ? f->told : "Bypass");
    return GO_ON;
}

static void gather(void *envoy, const config *c, stream *f)
{
    const size_t more = ENVOY(http_get_body_size)(envoy, RECEIVED_RESPONSE_BODY);
    const size_t n = ENVOY(http_get_body_chunks_size)(envoy, RECEIVED_RESPONSE_BODY);
    answer *a = f->fresh;
    text *chunks = n ? calloc(n, sizeof *chunks) : NULL;
    char *body = a->body_length + more <= c->max_bytes ? realloc(a->body, a->body_length + more + 1) : NULL;
    if (!body || (n && !chunks)) {
        free(chunks);
        if (body)
            a->body = body;
        answer_free(a); /* too large, or no memory: not kept */
        f->fresh = NULL;
        return;
    }
    a->body = body;
    if (n && ENVOY(http_get_body_chunks)(envoy, RECEIVED_RESPONSE_BODY, chunks))
        for (size_t i = 0; i < n; i++) {
            memcpy(a->body + a->body_length, chunks[i].at, chunks[i].length);
            a->body_length += chunks[i].length;
        }
    free(chunks);
}

static int body(void *envoy, void *s, const void *config_, bool last)
{
    const config *c = config_;
    stream *f = s;
    if (f->replacing) {
        ENVOY(http_drain_body)(envoy, RECEIVED_RESPONSE_BODY, ENVOY(http_get_body_size)(envoy, RECEIVED_RESPONSE_BODY));
        if (last)
            ENVOY(http_append_body)(envoy, RECEIVED_RESPONSE_BODY, (text){f->served->body, f->served->body_length});
    } else if (f->fresh) {
        gather(envoy, c, f);
        if (f->fresh && last)
            done(c, f);
    }
    return GO_ON;
}

const kind ANSWERS = {"answers", configure, configure_free, begin, end, request, response, body, NULL};
