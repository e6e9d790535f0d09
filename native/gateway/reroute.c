/* Somebody for whom the route has words of its own: once it is known who asks, the route is looked for again.
 *
 *   header NAME          the request header that says who asks
 *   to VALUE             for whom
 *
 * Filters behind this one, and the router, see the route that is found then. */
#include "envoy.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 64, MAX_VALUE = 256 };

void ENVOY(http_clear_route_cache)(void *envoy);

typedef struct {
    char header[MAX_NAME];
    char (*values)[MAX_VALUE];
    int n;
} config;

static bool add(config *c, const char *value)
{
    char(*grown)[MAX_VALUE] = realloc(c->values, (size_t)(c->n + 1) * sizeof *grown);
    if (!grown)
        return false;
    c->values = grown;
    return strlen(value) < MAX_VALUE && strcpy(c->values[c->n++], value);
}

static bool parse(void *into, const char *word, const char *value)
{
    config *c = into;
    if (!strcmp(word, "header"))
        return strlen(value) < MAX_NAME && strcpy(c->header, value);
    return !strcmp(word, "to") && add(c, value);
}

static void configure_free(void *config_)
{
    config *c = config_;
    free(c->values);
    free(c);
}

static void *configure(char *lines)
{
    config *c = calloc(1, sizeof *c);
    if (c && each_line(lines, parse, c))
        return c;
    if (c)
        configure_free(c);
    return NULL;
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
    const text who = c->n ? get(envoy, REQUEST, c->header) : (text){"", 0};
    for (int i = 0; i < c->n; i++)
        if (who.length == strlen(c->values[i]) && !memcmp(who.at, c->values[i], who.length)) {
            ENVOY(http_clear_route_cache)(envoy);
            break;
        }
    return GO_ON;
}

static int response(void *envoy, void *s, const void *c, bool last)
{
    (void)envoy, (void)s, (void)c, (void)last;
    return GO_ON;
}

const kind REROUTE = {"reroute", configure, configure_free, begin, end, request, response, NULL, NULL};
