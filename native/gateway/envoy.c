#include "envoy.h"

#include <string.h>
#include <strings.h>
#include <time.h>

int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

text get(void *envoy, int where, const char *name)
{
    text value = {"", 0};
    size_t count = 0;
    if (!ENVOY(http_get_header)(envoy, where, TEXT(name), &value, 0, &count) || !value.at)
        return (text){"", 0};
    return value;
}

void set(void *envoy, int where, const char *name, const char *value)
{
    ENVOY(http_set_header)(envoy, where, TEXT(name), TEXT(value));
}

bool same(text a, const char *b) { return a.length == strlen(b) && !strncasecmp(a.at, b, a.length); }

bool each_line(char *lines, bool (*parse)(void *into, const char *word, const char *value), void *into)
{
    char *rest = NULL;
    for (char *line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *value = strchr(line, ' ');
        if (value)
            *value++ = 0;
        if (!parse(into, line, value ? value : ""))
            return false;
    }
    return true;
}

size_t hop_before(const char *at, size_t end, text *hop)
{
    size_t begin = end;
    while (begin && at[begin - 1] != ',')
        begin--;
    const size_t next = begin ? begin - 1 : 0;
    while (begin < end && at[begin] == ' ')
        begin++;
    while (end > begin && at[end - 1] == ' ')
        end--;
    *hop = (text){at + begin, end - begin};
    return next;
}

text forwarded_at(void *envoy, int depth)
{
    const text all = get(envoy, REQUEST, "x-forwarded-for");
    text hop;
    size_t end = hop_before(all.at, all.length, &hop); /* the peer, whom Envoy has put there */
    for (; end && depth; depth--)
        end = hop_before(all.at, end, &hop);
    return depth ? (text){"", 0} : hop;
}
