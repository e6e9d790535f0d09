/* Exact limits, shared by all of one Envoy's workers. What a limit decides (limits.c) knows nothing of Envoy;
 * how Envoy asks and is answered (module.c) knows nothing of the arithmetic.
 *
 * Four algorithms:
 *   gcra      a token bucket or a leaky bucket by its arrival time: `burst` at once, then one every window/limit.
 *             Whoever comes too early is let through after a delay of at most max_delay (a queue), or refused.
 *   sliding   a log of arrivals: at most `limit` in any stretch of `window`. Refused ones do not count.
 *   calendar  windows that start at whole multiples of their length since 1970 (UTC), months and years by the
 *             calendar; several at once. Refused ones count too where `counts_refused`, as in Kong.
 *   in flight no rate at all: at most `limit` at one time; whoever was let in leaves.
 */
#ifndef SKYLIFT_LIMITS_H
#define SKYLIFT_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_PERIODS = 6, MAX_NAME = 96 };

typedef enum { GCRA, SLIDING, CALENDAR, IN_FLIGHT } algorithm;

typedef struct {
    int64_t window_us;
    uint32_t limit;
} period;

typedef struct {
    char name[MAX_NAME]; /* with the numbers below it names the state: a reload that keeps them keeps the counts */
    algorithm how;
    period periods[MAX_PERIODS];
    int n_periods; /* one, but for calendar */
    uint32_t burst;
    int64_t max_delay_us;
    bool counts_refused;
    uint32_t max_keys; /* the least recently used key gives way */
} rule;

typedef struct {
    bool ok;
    int64_t delay_us; /* wait this long before going on; 0 but for gcra */
    int64_t retry_us; /* refused: when it is worth trying again */
    uint32_t remaining[MAX_PERIODS];
    int64_t reset_us[MAX_PERIODS]; /* until the period's count is as low as it gets */
    int tightest;                  /* the period with the least remaining */
} verdict;

typedef struct state state;

/* The state of this rule: the one that is there, or a new one. NULL without memory. Give it back. */
state *state_of(const rule *r);
void state_give_back(state *s);

/* One arrival of `key`. `mono_us` never jumps; `wall_us` is UTC, for calendars. */
void leave(state *s, const char *key, size_t length); /* one that was in flight */
verdict arrive(state *s, const rule *r, const char *key, size_t length, int64_t mono_us, int64_t wall_us);

#endif
