/* A system of which the clock jumps by a day every two seconds (POPUP_CLOCK), and whose files have no locks (POPUP_NO_LOCKS).
   cc -shared -fPIC -o strange_system.so strange_system.c -ldl; LD_PRELOAD=strange_system.so */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static time_t moved(time_t now) { return getenv("POPUP_CLOCK") && now / 2 % 2 ? now + 86400 : now; }

int clock_gettime(clockid_t clock, struct timespec *found) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, found);
    if (clock == CLOCK_REALTIME) found->tv_sec = moved(found->tv_sec);
    return code;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}

static int locked(const char *name, int file, int command, void *argument) {
    int (*real)(int, int, ...) = dlsym(RTLD_NEXT, name);
    if (getenv("POPUP_NO_LOCKS") && (command == F_SETLK || command == F_SETLKW)) {
        errno = ENOLCK;
        return -1;
    }
    return real(file, command, argument);
}

#define LOCKED(name) int name(int file, int command, ...) { \
    va_list arguments; va_start(arguments, command); \
    void *argument = va_arg(arguments, void *); va_end(arguments); \
    return locked(#name, file, command, argument); }
LOCKED(fcntl)
LOCKED(fcntl64)
