/* Who may pass by an address of X-Forwarded-For; deny first, then allow.
 *
 *   depth N              the N-th from the right of what the client sent; too short is nobody
 *   excluded NETWORK     the first from the right that is in none of these
 *   allow NETWORK   deny NETWORK   status N   body TEXT
 *   tell HEADER          nobody is refused: the address is told in this header to what comes behind
 *
 * Envoy has put the peer's own address behind what the client sent: that one is never looked at. */
#include "envoy.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BODY = 512, MAX_ADDRESS = 64, MAX_TOLD = 64 };

typedef struct {
    uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
    int bits;
} network;

typedef struct {
    network *list;
    int n;
} networks;

typedef struct {
    int depth;
    networks excluded, allow, deny;
    uint32_t status;
    char body[MAX_BODY];
    char tell[MAX_TOLD];
    bool on;
} config;

static bool address_of(const char *at, size_t length, uint8_t bytes[16])
{
    char copy[MAX_ADDRESS];
    if (!length || length >= sizeof copy)
        return false;
    memcpy(copy, at, length);
    copy[length] = 0;
    if (inet_pton(AF_INET6, copy, bytes) == 1)
        return true;
    memset(bytes, 0, 10);
    bytes[10] = bytes[11] = 0xff;
    return inet_pton(AF_INET, copy, bytes + 12) == 1;
}

static bool add(networks *to, const char *value)
{
    network n;
    const char *slash = strchr(value, '/');
    const size_t length = slash ? (size_t)(slash - value) : strlen(value);
    if (!address_of(value, length, n.bytes))
        return false;
    const int before = memchr(value, ':', length) ? 0 : 96;
    n.bits = slash ? before + atoi(slash + 1) : 128;
    network *grown = realloc(to->list, (size_t)(to->n + 1) * sizeof n);
    if (!grown || n.bits < 0 || n.bits > 128)
        return false;
    to->list = grown;
    to->list[to->n++] = n;
    return true;
}

static bool within(const networks *of, const uint8_t bytes[16])
{
    for (int i = 0; i < of->n; i++) {
        const network *n = &of->list[i];
        const int whole = n->bits / 8, rest = n->bits % 8;
        const int mask = (0xff << (8 - rest)) & 0xff;
        if (!memcmp(n->bytes, bytes, (size_t)whole) && (!rest || !((n->bytes[whole] ^ bytes[whole]) & mask)))
            return true;
    }
    return false;
}

static bool parse(void *into, const char *word, const char *value)
{
    config *c = into;
    c->on = true;
    if (!strcmp(word, "depth"))
        return (c->depth = atoi(value)) > 0;
    if (!strcmp(word, "excluded"))
        return add(&c->excluded, value);
    if (!strcmp(word, "allow"))
        return add(&c->allow, value);
    if (!strcmp(word, "deny"))
        return add(&c->deny, value);
    if (!strcmp(word, "tell"))
        return strlen(value) < MAX_TOLD && strcpy(c->tell, value);
    if (!strcmp(word, "status"))
        return (c->status = (uint32_t)atoi(value)) >= 400;
    if (!strcmp(word, "body"))
        return strlen(value) < MAX_BODY && strcpy(c->body, value);
    return false;
}

static void configure_free(void *config_)
{
    config *c = config_;
    free(c->excluded.list);
    free(c->allow.list);
    free(c->deny.list);
    free(c);
}

static void *configure(char *lines)
{
    config *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->status = 403;
    if (each_line(lines, parse, c))
        return c;
    configure_free(c);
    return NULL;
}

/* The address that counts, as it stands there too; false where there is none. */
static bool wanted(void *envoy, const config *c, uint8_t bytes[16], text *hop)
{
    const text all = get(envoy, REQUEST, "x-forwarded-for");
    size_t end = hop_before(all.at, all.length, hop); /* the peer */
    for (int turn = 1; end; turn++) {
        end = hop_before(all.at, end, hop);
        if (c->depth && turn < c->depth)
            continue;
        const bool is_one = address_of(hop->at, hop->length, bytes);
        if (c->depth || !is_one || !within(&c->excluded, bytes))
            return is_one;
    }
    return false;
}

static void *begin(void) { return calloc(1, 1); }

static void end(void *f, const void *c)
{
    (void)c;
    free(f);
}

static int request(void *envoy, void *s, const void *config_)
{
    (void)s;
    const config *c = config_;
    uint8_t bytes[16];
    if (!c->on)
        return GO_ON;
    text hop;
    const bool known = wanted(envoy, c, bytes, &hop);
    if (c->tell[0]) {
        char told[MAX_TOLD]; /* the header's own text may move when another is set */
        if (known && hop.length < sizeof told) {
            memcpy(told, hop.at, hop.length);
            ENVOY(http_set_header)(envoy, REQUEST, TEXT(c->tell), (text){told, hop.length});
        }
        return GO_ON;
    }
    if ((!known || !within(&c->deny, bytes)) && (!c->allow.n || (known && within(&c->allow, bytes))))
        return GO_ON;
    const char *type = c->body[0] == '{' ? "application/json" : "text/plain; charset=utf-8";
    header h = {"content-type", 12, type, strlen(type)};
    ENVOY(http_send_response)(envoy, c->status, &h, 1, TEXT(c->body), TEXT("skylift_addresses"));
    return STOP;
}

static int response(void *envoy, void *s, const void *c, bool last)
{
    (void)envoy, (void)s, (void)c, (void)last;
    return GO_ON;
}

const kind ADDRESSES = {"addresses", configure, configure_free, begin, end, request, response, NULL, NULL};
