/* Faults on demand, for processes started with LD_PRELOAD: at the n-th call on a path below a folder
 * the process (or its whole group) is killed, or the call fails with an error number. The orders and
 * the count lie in a file that all processes share, so that a stage's workers count together. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN_WRITE = 1, WRITE = 2, RENAME = 4, REMOVE = 8, SYNC = 16, MKDIR = 32, READ = 64, LOOK = 128, LOCK = 256 };
enum { COUNT = 0, KILL = -1, KILL_GROUP = -2 };

struct orders {
    int calls;    /* which kinds of calls count; 0: none */
    int action;   /* COUNT, KILL, KILL_GROUP, or an error number */
    int lasting;  /* whether every later call fails too */
    int unused;
    long at;      /* the call that it happens at, from 1 */
    long count;   /* calls so far */
    char below[PATH_MAX];
};

static struct orders *orders;

__attribute__((constructor)) static void attach(void) {
    const char *name = getenv("FAULTS");
    int (*really_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int fd = name ? really_open(name, O_RDWR) : -1;
    if (fd < 0) return;
    void *memory = mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory != MAP_FAILED) orders = memory;
}

static int below(const char *path) {
    char full[2 * PATH_MAX];
    size_t length = strlen(orders->below);
    if (path[0] != '/') {
        if (!getcwd(full, PATH_MAX)) return 0;
        strcat(full, "/");
        strncat(full, path, PATH_MAX - 1);
        path = full;
    }
    return strncmp(path, orders->below, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* Whether the call is to fail; does not come back where the process is to die. */
static int strikes(int kind, const char *path) {
    if (!orders || !(orders->calls & kind) || !path || !below(path)) return 0;
    long n = __atomic_add_fetch(&orders->count, 1, __ATOMIC_SEQ_CST);
    if (orders->action == COUNT) return 0;
    if (n != orders->at && !(orders->lasting && n > orders->at)) return 0;
    if (orders->action == KILL_GROUP) kill(0, SIGKILL);
    if (orders->action < 0) kill(getpid(), SIGKILL);
    errno = orders->action;
    return 1;
}

static const char *named(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return path[0] == '/' ? path : NULL; /* not a pipe or a socket */
}

static int strikes_fd(int kind, int fd) {
    char path[PATH_MAX];
    return orders && (orders->calls & kind) && strikes(kind, named(fd, path));
}

/* A write is torn: half of it reaches the file before the process dies. */
static int dies_writing(int fd) {
    char path[PATH_MAX];
    if (!orders || !(orders->calls & WRITE) || orders->action >= 0) return 0;
    if (orders->count + 1 != orders->at) return 0;
    const char *name = named(fd, path);
    return name && below(name);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); \
        } \
        int writes = (flags & O_ACCMODE) != O_RDONLY; \
        return strikes(writes ? OPEN_WRITE : READ, path) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        REAL(int, #name, int, const char *, int, ...); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); \
        } \
        int writes = (flags & O_ACCMODE) != O_RDONLY; \
        return strikes(writes ? OPEN_WRITE : READ, path) ? -1 : real(dir, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(FILE *, #name, const char *, const char *); \
        return strikes(mode[0] == 'r' ? READ : OPEN_WRITE, path) ? NULL : real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (size > 1 && dies_writing(fd)) real(fd, data, size / 2);
    return strikes_fd(WRITE, fd) ? -1 : real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return strikes_fd(WRITE, fd) ? -1 : real(fd, parts, count);
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t size, off_t at) { \
        REAL(ssize_t, #name, int, const void *, size_t, off_t); \
        if (size > 1 && dies_writing(fd)) real(fd, data, size / 2, at); \
        return strikes_fd(WRITE, fd) ? -1 : real(fd, data, size, at); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t read(int fd, void *data, size_t size) {
    REAL(ssize_t, "read", int, void *, size_t);
    return strikes_fd(READ, fd) ? -1 : real(fd, data, size);
}

#define PREAD(name) \
    ssize_t name(int fd, void *data, size_t size, off_t at) { \
        REAL(ssize_t, #name, int, void *, size_t, off_t); \
        return strikes_fd(READ, fd) ? -1 : real(fd, data, size, at); \
    }
PREAD(pread)
PREAD(pread64)

size_t fread(void *data, size_t size, size_t count, FILE *file) {
    REAL(size_t, "fread", void *, size_t, size_t, FILE *);
    return strikes_fd(READ, fileno(file)) ? 0 : real(data, size, count, file);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return strikes(RENAME, to) ? -1 : real(from, to);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    return strikes(REMOVE, path) ? -1 : real(path);
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return strikes_fd(SYNC, fd) ? -1 : real(fd);
}

int flock(int fd, int operation) {
    REAL(int, "flock", int, int);
    return strikes_fd(LOCK, fd) ? -1 : real(fd, operation);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return strikes(MKDIR, path) ? -1 : real(path, mode);
}

#define STAT(name, type) \
    int name(const char *path, struct type *found) { \
        REAL(int, #name, const char *, struct type *); \
        return strikes(LOOK, path) ? -1 : real(path, found); \
    }
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)

#define FSTATAT(name, type) \
    int name(int dir, const char *path, struct type *found, int flags) { \
        REAL(int, #name, int, const char *, struct type *, int); \
        return strikes(LOOK, path) ? -1 : real(dir, path, found, flags); \
    }
FSTATAT(fstatat, stat)
FSTATAT(fstatat64, stat64)
