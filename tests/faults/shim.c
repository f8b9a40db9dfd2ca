/* Faults at real system calls, for LD_PRELOAD: what touches files below one directory is counted by name ("fsync
 * feedback.db-wal"), and at a chosen call the process is killed, the call fails, or half of a write reaches the file.
 *
 * The plan is a file that every process of the service maps (FAULT_PLAN names it), and so does the test, which arms it
 * while the service runs: tests/faults/plan.py has the same layout. Memory-mapped files (-shm) are out of its reach. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum action { NOTHING, KILL_BEFORE, KILL_AFTER, KILL_HALF, FAIL, HANG };
enum { POINTS = 256, NAME = 56 };

struct point {
    char name[NAME];
    _Atomic uint32_t state; /* 0 free, 1 being named, 2 named */
    _Atomic uint32_t count;
};

struct plan {
    char directory[256];
    char name[NAME];          /* the point; empty: every one */
    _Atomic uint32_t action;  /* written last by the test, so that the rest is there */
    uint32_t error;           /* for FAIL */
    uint32_t everyone;        /* kill the whole process group */
    uint32_t first, last;     /* which calls of the point, counted from 1 when armed */
    _Atomic uint32_t seen, fired;
    _Atomic int64_t clock;    /* nanoseconds that the wall clock is ahead */
    struct point points[POINTS];
};

static struct plan *plan;

void fault_attach(void) {
    const char *path = getenv("FAULT_PLAN");
    int fd = path ? (int)openat(AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        plan = mapped;
}

__attribute__((constructor)) static void start(void) { fault_attach(); }

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

#define REAL(name) \
    static __typeof__(&name) real_##name; \
    if (!real_##name) \
        real_##name = (__typeof__(&name))real(#name)

static int is_hash(const char *text) { return strspn(text, "0123456789abcdef") == 64; }

/* A name that is the same in each run: ".<hash>.safetensors.<pid>" -> "checkpoint.new". */
static void stable_name(char *out, size_t size, const char *operation, const char *below) {
    char base[256];
    const char *slash = strrchr(below, '/');
    snprintf(base, sizeof base, "%s", slash ? slash + 1 : below);
    int fresh = base[0] == '.';
    char *name = base + fresh;
    char *dot = strrchr(name, '.');
    if (fresh && dot && dot[1] && dot[1 + strspn(dot + 1, "0123456789")] == 0)
        *dot = 0;
    if (is_hash(name))
        strcpy(name, "checkpoint");
    snprintf(out, size, "%s %.30s%s", operation, *name ? name : "directory", fresh ? ".new" : "");
}

static void count(const char *name) {
    for (int i = 0; i < POINTS; i++) {
        struct point *point = &plan->points[i];
        uint32_t unnamed = 0;
        if (atomic_load(&point->state) == 0 && atomic_compare_exchange_strong(&point->state, &unnamed, 1)) {
            snprintf(point->name, NAME, "%s", name);
            atomic_store(&point->state, 2);
        }
        while (atomic_load(&point->state) == 1)
            ;
        if (strcmp(point->name, name) == 0) {
            atomic_fetch_add(&point->count, 1);
            return;
        }
    }
}

static void die(void) {
    kill(plan->everyone ? 0 : getpid(), SIGKILL);
    for (;;)
        pause();
}

/* What is to happen to this call; where it is death before the call, it happens here. */
static enum action meet(const char *operation, const char *path) {
    char name[NAME];
    size_t length = plan ? strlen(plan->directory) : 0;
    if (!length || strncmp(path, plan->directory, length) != 0 || (path[length] && path[length] != '/'))
        return NOTHING;
    if (strncmp(path + length, "/bells", 6) == 0)
        return NOTHING;
    stable_name(name, sizeof name, operation, path + length);
    count(name);
    enum action action = atomic_load(&plan->action);
    if (action == NOTHING || (plan->name[0] && strcmp(plan->name, name) != 0))
        return NOTHING;
    uint32_t seen = atomic_fetch_add(&plan->seen, 1) + 1;
    if (seen < plan->first || seen > plan->last)
        return NOTHING;
    atomic_fetch_add(&plan->fired, 1);
    if (action == KILL_BEFORE)
        die();
    if (action == HANG)
        for (;;)
            pause();
    return action;
}

static enum action meet_fd(const char *operation, int fd) {
    char link[32], path[512];
    if (!plan || !plan->directory[0])
        return NOTHING;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return NOTHING;
    path[length] = 0;
    return meet(operation, path);
}

#define AROUND(met, call) \
    ({ \
        enum action happening = (met); \
        if (happening == FAIL) { \
            errno = plan->error; \
            return -1; \
        } \
        __typeof__(call) result = (call); \
        if (happening == KILL_AFTER) \
            die(); \
        result; \
    })

/* Half of a write, and then the end. */
#define WRITE(met, half, whole) \
    ({ \
        enum action wanted = (met); \
        if (wanted == KILL_HALF) { \
            if ((half) >= 0) \
                die(); \
            return -1; \
        } \
        AROUND(wanted, whole); \
    })

#define OPEN(name, directory, ...) \
    REAL(name); \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    } \
    int writes = flags & (O_WRONLY | O_RDWR | O_CREAT); \
    return AROUND(writes ? meet("open", path) : NOTHING, real_##name(__VA_ARGS__, flags, mode))

int open(const char *path, int flags, ...) { OPEN(open, AT_FDCWD, path); }
int open64(const char *path, int flags, ...) { OPEN(open64, AT_FDCWD, path); }
int openat(int directory, const char *path, int flags, ...) { OPEN(openat, directory, directory, path); }
int openat64(int directory, const char *path, int flags, ...) { OPEN(openat64, directory, directory, path); }

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    return WRITE(meet_fd("write", fd), real_write(fd, data, size / 2), real_write(fd, data, size));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    return WRITE(meet_fd("write", fd), real_pwrite(fd, data, size / 2, at), real_pwrite(fd, data, size, at));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    return WRITE(meet_fd("write", fd), real_pwrite64(fd, data, size / 2, at), real_pwrite64(fd, data, size, at));
}

ssize_t writev(int fd, const struct iovec *data, int count) {
    REAL(writev);
    return WRITE(meet_fd("write", fd), real_writev(fd, data, count / 2), real_writev(fd, data, count));
}

ssize_t pwritev(int fd, const struct iovec *data, int count, off_t at) {
    REAL(pwritev);
    return WRITE(meet_fd("write", fd), real_pwritev(fd, data, count / 2, at), real_pwritev(fd, data, count, at));
}

int fsync(int fd) {
    REAL(fsync);
    return AROUND(meet_fd("fsync", fd), real_fsync(fd));
}

int fdatasync(int fd) {
    REAL(fdatasync);
    return AROUND(meet_fd("fsync", fd), real_fdatasync(fd));
}

int ftruncate(int fd, off_t size) {
    REAL(ftruncate);
    return AROUND(meet_fd("truncate", fd), real_ftruncate(fd, size));
}

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    return AROUND(meet_fd("truncate", fd), real_ftruncate64(fd, size));
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return AROUND(meet("rename", to), real_rename(from, to));
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    REAL(renameat);
    return AROUND(meet("rename", to), real_renameat(from_directory, from, to_directory, to));
}

int unlink(const char *path) {
    REAL(unlink);
    return AROUND(meet("unlink", path), real_unlink(path));
}

int unlinkat(int directory, const char *path, int flags) {
    REAL(unlinkat);
    return AROUND(meet("unlink", path), real_unlinkat(directory, path, flags));
}

/* The wall clock, which people and NTP set. */
int clock_gettime(clockid_t id, struct timespec *now) {
    REAL(clock_gettime);
    int status = real_clock_gettime(id, now);
    int64_t ahead = plan ? atomic_load(&plan->clock) : 0;
    if (status == 0 && id == CLOCK_REALTIME && ahead) {
        int64_t moment = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + ahead;
        now->tv_sec = moment / INT64_C(1000000000);
        now->tv_nsec = moment % INT64_C(1000000000);
    }
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec moment;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &moment);
    now->tv_sec = moment.tv_sec;
    now->tv_usec = moment.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec moment;
    clock_gettime(CLOCK_REALTIME, &moment);
    if (now)
        *now = moment.tv_sec;
    return moment.tv_sec;
}
