/* Counts, fails, stops or records the file operations of the process it is preloaded into, below one
 * directory. One global counter numbers them: `at N` means the N-th operation of the process, on
 * whatever thread. Built and driven by shim.rs, which also reads the log.
 *
 *   SHIM_ROOT   the directory, absolute and without symbolic links
 *   SHIM_LOG    where operations are logged
 *   SHIM_MODE   count | kill | torn | once | sticky | record
 *   SHIM_AT     N; for record, where the process is killed, if anywhere
 *   SHIM_ERRNO  for once and sticky
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum op { WRITE = 1, CREATE, TRUNCATE, SYNC, RENAME, UNLINK, RMDIR, MKDIR, XATTR, LINK };
enum mode { OFF, COUNT, KILL, TORN, ONCE, STICKY, RECORD };

/* One entry of the log: this head, then path, second path and data. */
struct head {
    uint32_t op;
    uint32_t path_len, other_len, data_len;
    uint64_t at;     /* the operation's number */
    uint64_t covers; /* of a sync: how many entries were in the log when it began */
    uint64_t ino;
    uint64_t offset; /* of a write; the length of a truncation */
};

static enum mode mode;
static uint64_t fault_at;
static int fault_errno, log_fd = -1;
static char root[PATH_MAX];
static size_t root_len;
static atomic_ullong counter;
static uint64_t logged; /* guarded by the lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *names[] = {"off", "count", "kill", "torn", "once", "sticky", "record"};
    const char *name = getenv("SHIM_MODE"), *dir = getenv("SHIM_ROOT"), *log = getenv("SHIM_LOG");
    if (!name || !dir || !log) return;
    for (int i = 0; i < 7; i++)
        if (!strcmp(name, names[i])) mode = i;
    root_len = (size_t)snprintf(root, sizeof root, "%s", dir);
    if (getenv("SHIM_AT")) fault_at = strtoull(getenv("SHIM_AT"), NULL, 10);
    if (getenv("SHIM_ERRNO")) fault_errno = atoi(getenv("SHIM_ERRNO"));
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_inside(const char *path) {
    return mode && !strncmp(path, root, root_len) && path[root_len] == '/';
}

/* The path that a descriptor stands for; false when it is not below the root. */
static int path_of(int fd, char *out) {
    int before = errno;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = mode ? syscall(SYS_readlink, link, out, PATH_MAX - 1) : -1;
    errno = before;
    if (n < 0) return 0;
    out[n] = 0;
    return is_inside(out);
}

/* A path as an absolute one; false when it is not below the root. */
static int absolute(int dir, const char *path, char *out) {
    if (!mode) return 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else if (dir == AT_FDCWD) {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here)) return 0;
        if (snprintf(out, PATH_MAX, "%s/%s", here, path) >= PATH_MAX) return 0;
    } else {
        char base[PATH_MAX];
        if (!path_of(dir, base) && strcmp(base, root)) return 0;
        if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    }
    return is_inside(out);
}

static void put(struct head *head, const char *path, const char *other, const void *data) {
    head->path_len = path ? (uint32_t)strlen(path) : 0;
    head->other_len = other ? (uint32_t)strlen(other) : 0;
    struct iovec parts[4] = {
        {head, sizeof *head},
        {(void *)path, head->path_len},
        {(void *)other, head->other_len},
        {(void *)data, head->data_len},
    };
    pthread_mutex_lock(&lock);
    syscall(SYS_writev, log_fd, parts, 4);
    logged++;
    pthread_mutex_unlock(&lock);
}

/* What becomes of an operation. */
enum fate { GO, HALF, FAIL };

/* Numbers an operation and decides its fate; one that is not gone through with is logged here. */
static enum fate enter(struct head *head, const char *path, const char *other) {
    int before = errno;
    head->at = ++counter;
    if (mode == RECORD) {
        if (head->at == fault_at) kill(getpid(), SIGKILL);
        pthread_mutex_lock(&lock);
        head->covers = logged;
        pthread_mutex_unlock(&lock);
        return GO;
    }
    put(head, path, other, NULL);
    if (mode == KILL && head->at == fault_at) kill(getpid(), SIGKILL);
    if (mode == TORN && head->at == fault_at) return HALF;
    if ((mode == ONCE && head->at == fault_at) || (mode == STICKY && head->at >= fault_at)) {
        errno = fault_errno;
        return FAIL;
    }
    errno = before;
    return GO;
}

/* Logs what was done, and ends a process whose operation was to be its last. */
static void leave(struct head *head, enum fate fate, const char *path, const char *other, const void *data) {
    int before = errno;
    if (fate == HALF) kill(getpid(), SIGKILL);
    if (mode == RECORD) put(head, path, other, data);
    errno = before;
}

/* A name that one thread has made is seen by others before it is logged: while operations are
 * recorded, those on names are carried out and logged one after the other. */
static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;
static void hold_names(void) {
    if (mode == RECORD) pthread_mutex_lock(&names_lock);
}
static int let_names_go(int result) {
    int before = errno;
    if (mode == RECORD) pthread_mutex_unlock(&names_lock);
    errno = before;
    return result;
}

#define REAL(type, name, ...)                                                  \
    static type (*real)(__VA_ARGS__);                                          \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static void identify(struct head *head, int fd) {
    struct stat st;
    if (fstat(fd, &st) == 0) head->ino = st.st_ino;
}

static void identify_path(struct head *head, const char *path) {
    struct stat st;
    if (lstat(path, &st) == 0) head->ino = st.st_ino;
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    char path[PATH_MAX];
    if (!path_of(fd, path)) return real(fd, data, size);
    struct head head = {.op = WRITE};
    identify(&head, fd);
    enum fate fate = enter(&head, path, NULL);
    if (fate == FAIL) return -1;
    ssize_t done = real(fd, data, fate == HALF ? size / 2 : size);
    if (done < 0) return done;
    head.offset = (uint64_t)(lseek(fd, 0, SEEK_CUR) - done);
    head.data_len = (uint32_t)done;
    leave(&head, fate, path, NULL, data);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    char path[PATH_MAX];
    if (!path_of(fd, path)) return real(fd, parts, count);
    /* As one write of the first part: short writes are allowed. */
    return count ? write(fd, parts[0].iov_base, parts[0].iov_len) : 0;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    char path[PATH_MAX];
    if (!path_of(fd, path)) return real(fd, data, size, offset);
    struct head head = {.op = WRITE, .offset = (uint64_t)offset};
    identify(&head, fd);
    enum fate fate = enter(&head, path, NULL);
    if (fate == FAIL) return -1;
    ssize_t done = real(fd, data, fate == HALF ? size / 2 : size, offset);
    if (done < 0) return done;
    head.data_len = (uint32_t)done;
    leave(&head, fate, path, NULL, data);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return pwrite64(fd, data, size, offset);
}

#define SYNCS(name)                                                            \
    int name(int fd) {                                                         \
        REAL(int, #name, int);                                                 \
        char path[PATH_MAX];                                                   \
        if (!path_of(fd, path) && (!mode || strcmp(path, root))) return real(fd); \
        struct head head = {.op = SYNC};                                       \
        identify(&head, fd);                                                   \
        enum fate fate = enter(&head, path, NULL);                             \
        if (fate == FAIL) return -1;                                           \
        int done = real(fd);                                                   \
        if (done == 0) leave(&head, fate, path, NULL, NULL);                   \
        return done;                                                           \
    }
SYNCS(fsync)
SYNCS(fdatasync)

/* Writes pages out and promises nothing: an operation, but no sync. */
int sync_file_range(int fd, off64_t offset, off64_t size, unsigned flags) {
    REAL(int, "sync_file_range", int, off64_t, off64_t, unsigned);
    char path[PATH_MAX];
    if (!path_of(fd, path)) return real(fd, offset, size, flags);
    struct head head = {.op = XATTR};
    enum fate fate = enter(&head, path, NULL);
    if (fate == FAIL) return -1;
    int done = real(fd, offset, size, flags);
    leave(&head, fate, path, NULL, NULL);
    return done;
}

/* What a file has besides its bytes, by its descriptor. */
#define ATTRIBUTES(name, parameters, arguments)                                \
    int name parameters {                                                      \
        char path[PATH_MAX];                                                   \
        if (!path_of(fd, path)) return (int)syscall(SYS_##name, arguments);    \
        struct head head = {.op = XATTR};                                      \
        identify(&head, fd);                                                   \
        enum fate fate = enter(&head, path, NULL);                             \
        if (fate == FAIL) return -1;                                           \
        int done = (int)syscall(SYS_##name, arguments);                        \
        if (done == 0) leave(&head, fate, path, NULL, NULL);                   \
        return done;                                                           \
    }
#define ALL(...) __VA_ARGS__
ATTRIBUTES(fchmod, (int fd, mode_t bits), ALL(fd, bits))
ATTRIBUTES(fchown, (int fd, uid_t owner, gid_t group), ALL(fd, owner, group))
ATTRIBUTES(fsetxattr, (int fd, const char *key, const void *value, size_t size, int flags), ALL(fd, key, value, size, flags))

int ftruncate64(int fd, off64_t length) {
    REAL(int, "ftruncate64", int, off64_t);
    char path[PATH_MAX];
    if (!path_of(fd, path)) return real(fd, length);
    struct head head = {.op = TRUNCATE, .offset = (uint64_t)length};
    identify(&head, fd);
    enum fate fate = enter(&head, path, NULL);
    if (fate == FAIL) return -1;
    int done = real(fd, length);
    if (done == 0) leave(&head, fate, path, NULL, NULL);
    return done;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int open_at(int dir, const char *name, int flags, mode_t bits) {
    char path[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !absolute(dir, name, path))
        return (int)syscall(SYS_openat, dir, name, flags, bits);
    struct head head = {.op = CREATE, .offset = flags & O_TRUNC ? 1 : 0};
    enum fate fate = enter(&head, path, NULL);
    if (fate == FAIL) return -1;
    hold_names();
    int fd = (int)syscall(SYS_openat, dir, name, flags, bits);
    if (fd < 0) return let_names_go(fd);
    identify(&head, fd);
    leave(&head, fate, path, NULL, NULL);
    return let_names_go(fd);
}

#define OPENS(name, before, dir)                                               \
    int name(before const char *path, int flags, ...) {                        \
        va_list rest;                                                          \
        va_start(rest, flags);                                                 \
        mode_t bits = flags & O_CREAT ? va_arg(rest, mode_t) : 0;              \
        va_end(rest);                                                          \
        return open_at(dir, path, flags, bits);                                \
    }
#define DIR_ARGUMENT int dir,
OPENS(open, , AT_FDCWD)
OPENS(open64, , AT_FDCWD)
OPENS(openat, DIR_ARGUMENT, dir)
OPENS(openat64, DIR_ARGUMENT, dir)

/* Operations on names, carried out by one system call each. */
#define NAMES(kind, dir, name, call)                                           \
    char path[PATH_MAX];                                                       \
    if (!absolute(dir, name, path)) return (int)(call);                        \
    struct head head = {.op = (kind)};                                         \
    if (head.op != MKDIR) identify_path(&head, path);                          \
    enum fate fate = enter(&head, path, NULL);                                 \
    if (fate == FAIL) return -1;                                               \
    hold_names();                                                              \
    int done = (int)(call);                                                    \
    if (head.op == MKDIR) identify_path(&head, path);                          \
    if (done == 0) leave(&head, fate, path, NULL, NULL);                       \
    return let_names_go(done)

int unlink(const char *name) { NAMES(UNLINK, AT_FDCWD, name, syscall(SYS_unlink, name)); }
int rmdir(const char *name) { NAMES(RMDIR, AT_FDCWD, name, syscall(SYS_rmdir, name)); }
int unlinkat(int dir, const char *name, int flags) {
    NAMES(flags & AT_REMOVEDIR ? RMDIR : UNLINK, dir, name, syscall(SYS_unlinkat, dir, name, flags));
}
int mkdir(const char *name, mode_t bits) { NAMES(MKDIR, AT_FDCWD, name, syscall(SYS_mkdir, name, bits)); }
int mkdirat(int dir, const char *name, mode_t bits) {
    NAMES(MKDIR, dir, name, syscall(SYS_mkdirat, dir, name, bits));
}
int setxattr(const char *name, const char *key, const void *value, size_t size, int flags) {
    NAMES(XATTR, AT_FDCWD, name, syscall(SYS_setxattr, name, key, value, size, flags));
}

static int two_names(enum op kind, int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char path[PATH_MAX], other[PATH_MAX];
    long call = kind == RENAME ? SYS_renameat2 : SYS_linkat;
    if (!absolute(from_dir, from, path) | !absolute(to_dir, to, other))
        return (int)syscall(call, from_dir, from, to_dir, to, flags);
    struct head head = {.op = kind};
    identify_path(&head, path);
    enum fate fate = enter(&head, path, other);
    if (fate == FAIL) return -1;
    hold_names();
    int done = (int)syscall(call, from_dir, from, to_dir, to, flags);
    if (done == 0) leave(&head, fate, path, other, NULL);
    return let_names_go(done);
}

int rename(const char *from, const char *to) { return two_names(RENAME, AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return two_names(RENAME, a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return two_names(RENAME, a, from, b, to, flags);
}
int link(const char *from, const char *to) { return two_names(LINK, AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    return two_names(LINK, a, from, b, to, (unsigned)flags);
}
