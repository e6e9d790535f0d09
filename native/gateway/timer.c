/* A heap by due time, one thread that sleeps until the first is due. A waiter belongs to the filter until it is
 * forgotten; the thread only wakes it. */
#include "timer.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

void envoy_dynamic_module_callback_http_filter_scheduler_commit(void *scheduler, uint64_t event);
void envoy_dynamic_module_callback_http_filter_scheduler_delete(void *scheduler);

struct waiter {
    int64_t due_us;
    void *scheduler;
    long at; /* in the heap; -1 once it has been woken */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static bool running;
static waiter **heap;
static long size, room;

static void put(long i, waiter *w)
{
    heap[i] = w;
    w->at = i;
}

static void rise(long i, waiter *w)
{
    for (long up; i && heap[up = (i - 1) / 2]->due_us > w->due_us; i = up)
        put(i, heap[up]);
    put(i, w);
}

static void sink(long i, waiter *w)
{
    for (long down; (down = 2 * i + 1) < size; i = down) {
        if (down + 1 < size && heap[down + 1]->due_us < heap[down]->due_us)
            down++;
        if (heap[down]->due_us >= w->due_us)
            break;
        put(i, heap[down]);
    }
    put(i, w);
}

static void take_out(waiter *w)
{
    const long i = w->at;
    waiter *last = heap[--size];
    w->at = -1;
    if (last == w)
        return;
    if (i && heap[(i - 1) / 2]->due_us > last->due_us)
        rise(i, last);
    else
        sink(i, last);
}

static void *run(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        const int64_t now = t.tv_sec * 1000000LL + t.tv_nsec / 1000;
        while (size && heap[0]->due_us <= now) {
            waiter *w = heap[0];
            take_out(w);
            envoy_dynamic_module_callback_http_filter_scheduler_commit(w->scheduler, 0);
        }
        if (!size) {
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        const int64_t due = heap[0]->due_us;
        t = (struct timespec){due / 1000000, due % 1000000 * 1000};
        pthread_cond_timedwait(&changed, &lock, &t);
    }
    return NULL;
}

static bool start(void)
{
    pthread_condattr_t monotonic;
    pthread_t thread;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return !pthread_create(&thread, NULL, run, NULL) && !pthread_detach(thread);
}

waiter *timer_wait(void *scheduler, int64_t due_us)
{
    waiter *w = malloc(sizeof *w);
    bool kept = false;
    pthread_mutex_lock(&lock);
    running = running || start();
    if (w && running && size == room) {
        waiter **more = realloc(heap, (size_t)(room + 1024) * sizeof *heap);
        if (more) {
            heap = more;
            room += 1024;
        }
    }
    if (w && running && size < room) {
        *w = (waiter){due_us, scheduler, size};
        rise(size++, w);
        kept = true;
        pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&lock);
    if (kept)
        return w;
    free(w);
    envoy_dynamic_module_callback_http_filter_scheduler_delete(scheduler);
    return NULL;
}

void timer_forget(waiter *w)
{
    pthread_mutex_lock(&lock);
    if (w->at >= 0)
        take_out(w);
    pthread_mutex_unlock(&lock);
    envoy_dynamic_module_callback_http_filter_scheduler_delete(w->scheduler);
    free(w);
}
