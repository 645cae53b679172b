/* A wall clock that jumps: preloaded into a command by limits.rs. The clocks that only run forward
 * stay as they are.
 *
 *   CLOCK_JUMP   by how many seconds
 *   CLOCK_AFTER  after how many readings
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_long readings;

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static time_t jump(void) {
    return atomic_fetch_add(&readings, 1) < number("CLOCK_AFTER") ? 0 : number("CLOCK_JUMP");
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += jump();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = (int)syscall(SYS_gettimeofday, now, zone);
    if (result == 0)
        now->tv_sec += jump();
    return result;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into)
        *into = now.tv_sec;
    return now.tv_sec;
}
