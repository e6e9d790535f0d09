/* Wakes filters that wait, from one thread of its own. */
#ifndef SKYLIFT_TIMER_H
#define SKYLIFT_TIMER_H

#include <stdint.h>

typedef struct waiter waiter;

/* Commits to `scheduler` (Envoy's; owned from here on) at `due_us` of CLOCK_MONOTONIC. NULL without memory or
 * thread: then nobody waits. */
waiter *timer_wait(void *scheduler, int64_t due_us);

/* The filter is gone, or has been woken: once for each waiter. */
void timer_forget(waiter *w);

#endif
