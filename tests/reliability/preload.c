/* What the reliability runs put before the C library of the service: a wall clock that is ahead or behind, and a
 * disk that takes its time. The monotonic clock stays what it is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* What the run has set: how many seconds the clock is ahead, and how many milliseconds a flush of a file to the disk
 * may take. The run writes both while every process reads them. */
static const volatile int64_t *set;
enum { AHEAD_SECS, FLUSH_MAX_MS, COUNT };

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TEST_PRELOAD_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *shared = mmap(NULL, COUNT * sizeof *set, PROT_READ, MAP_SHARED, file, 0);
    if (shared == MAP_FAILED) abort();
    set = shared;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && set && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += (time_t)set[AHEAD_SECS];
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    if (seconds) *seconds = exact.tv_sec;
    return exact.tv_sec;
}

/* Any time up to the longest, from the last digits of the clock. */
static void take_time(void) {
    struct timespec now, pause;
    int64_t longest_ms = set ? set[FLUSH_MAX_MS] : 0;
    if (longest_ms <= 0) return;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    int64_t pause_ms = now.tv_nsec / 1000 % (longest_ms + 1);
    pause.tv_sec = pause_ms / 1000;
    pause.tv_nsec = pause_ms % 1000 * 1000000;
    nanosleep(&pause, NULL);
}

int fsync(int file) {
    take_time();
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    take_time();
    return (int)syscall(SYS_fdatasync, file);
}
