#include "consumers.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

const char *const CONSUMER_HEADERS[CONSUMER_FIELDS] = {
    "x-consumer-username", "x-consumer-custom-id", "x-consumer-id",
    "x-credential-identifier", "x-sl-groups", "x-sl-plan",
};

typedef struct {
    const char *credential;
    const char *fields[CONSUMER_FIELDS];
} row;

struct consumers {
    char *text; /* what the rows point into */
    const char *headers[MAX_FROM];
    int n_headers;
    row otherwise;
    size_t slots; /* a power of two, at least twice as many as rows */
    row *table;
};

static size_t slot_of(const consumers *c, const char *credential, size_t n)
{
    uint64_t h = 1469598103934665603ULL;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)credential[i]) * 1099511628211ULL;
    for (size_t at = h & (c->slots - 1);; at = (at + 1) & (c->slots - 1)) {
        const char *there = c->table[at].credential;
        if (!there || (strlen(there) == n && !memcmp(there, credential, n)))
            return at;
    }
}

/* The line's credential and fields, taken apart in place. */
static int read_row(row *r, char *line)
{
    char *parts[1 + CONSUMER_FIELDS];
    int n = 0;
    for (char *at = line; at && n <= CONSUMER_FIELDS;) {
        parts[n++] = at;
        at = strchr(at, '\t');
        if (at)
            *at++ = 0;
    }
    if (n != 1 + CONSUMER_FIELDS)
        return 0;
    r->credential = parts[0];
    for (int i = 0; i < CONSUMER_FIELDS; i++)
        r->fields[i] = parts[i + 1];
    return 1;
}

static int add(consumers *c, char *line)
{
    row r;
    if (!read_row(&r, line) || !r.credential[0])
        return 0;
    c->table[slot_of(c, r.credential, strlen(r.credential))] = r;
    return 1;
}

static int add_header(consumers *c, const char *name)
{
    if (c->n_headers == MAX_FROM)
        return 0;
    c->headers[c->n_headers++] = name;
    return 1;
}

consumers *consumers_of(char *lines)
{
    consumers *c = calloc(1, sizeof *c);
    size_t rows = 0;
    int good = c && (c->text = strdup(lines));
    for (const char *at = lines; *at; at++)
        rows += *at == '\n';
    if (good) {
        for (c->slots = 8; c->slots < 2 * (rows + 1); c->slots *= 2)
            ;
        c->table = calloc(c->slots, sizeof *c->table);
        good = c->table != NULL;
    }
    char *rest = NULL;
    for (char *line = good ? strtok_r(c->text, "\n", &rest) : NULL; good && line; line = strtok_r(NULL, "\n", &rest)) {
        if (!strncmp(line, "from ", 5))
            good = add_header(c, line + 5);
        else if (!strncmp(line, "else ", 5))
            good = read_row(&c->otherwise, line + 5);
        else
            good = !strncmp(line, "is ", 3) && add(c, line + 3);
    }
    if (good && c->n_headers)
        return c;
    consumers_free(c);
    return NULL;
}

void consumers_free(consumers *c)
{
    if (!c)
        return;
    free(c->table);
    free(c->text);
    free(c);
}

const char *consumers_header(const consumers *c, int i) { return i < c->n_headers ? c->headers[i] : NULL; }

const char *const *consumers_otherwise(const consumers *c)
{
    return c->otherwise.credential ? c->otherwise.fields : NULL;
}

const char *const *consumers_find(const consumers *c, const char *credential, size_t length)
{
    const row *r = &c->table[slot_of(c, credential, length)];
    return r->credential ? r->fields : NULL;
}
