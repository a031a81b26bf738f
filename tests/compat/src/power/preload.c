/* A machine whose power can fail: what a program believes to be durable is asked of a disk that is simulated.
 *
 * Preloaded into every process of such a machine. Bytes and names are written where they always are, and that is the machine's page
 * cache; what is durable is what the disk (disk.rs) has taken a copy of, and it does so before a sync returns. So mapped memory needs
 * nothing of its own: a page cache is one, whoever writes to it.
 *
 * - fsync (all of it), fdatasync (perhaps without its change time), and writes to files opened with O_DSYNC or O_SYNC: the disk is asked, and the answer waited for.
 * - statx: a file that was put back after a power failure keeps the change time that it had on the disk, until it is changed.
 * - /proc/sys/kernel/random/boot_id is another file after each failure.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(name) *)next(#name))

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

/* Asks the disk: which bytes, or -1 for all of them and what is known of the file, -2 for all of them. A machine without power does not answer any more, and its processes are about to be killed. */
static void ask(int fd, long long offset, long long len) {
    const char *path = getenv("POWER_DISK");
    if (!path) return;
    int before = errno;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    int line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char text[96], answer = 0;
    int count = snprintf(text, sizeof text, "%d %d %lld %lld\n", (int)getpid(), fd, offset, len);
    if (line < 0 || connect(line, (struct sockaddr *)&to, sizeof to) || write(line, text, count) != count ||
        read(line, &answer, 1) != 1)
        for (;;) pause();
    close(line);
    errno = before;
}

int fsync(int fd) {
    ask(fd, 0, -1);
    return 0;
}

int fdatasync(int fd) {
    ask(fd, 0, -2);
    return 0;
}

static ssize_t wrote(int fd, ssize_t count, long long offset) {
    if (count > 0 && (fcntl(fd, F_GETFL) & (O_DSYNC | O_SYNC))) ask(fd, offset, count);
    return count;
}

ssize_t pwrite(int fd, const void *from, size_t len, off_t offset) {
    return wrote(fd, NEXT(pwrite)(fd, from, len, offset), offset);
}

ssize_t pwrite64(int fd, const void *from, size_t len, off64_t offset) {
    return wrote(fd, NEXT(pwrite64)(fd, from, len, offset), offset);
}

static const char *named(const char *path) {
    const char *boot = getenv("POWER_BOOT");
    return boot && path && !strcmp(path, "/proc/sys/kernel/random/boot_id") ? boot : path;
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return NEXT(open)(named(path), flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return NEXT(open64)(named(path), flags, mode);
}

/* One line a file: inode, change time as it is, change time to be shown. */
static struct shown {
    unsigned long long inode;
    long long is_seconds, shown_seconds;
    unsigned is_nanos, shown_nanos;
} *shown;
static size_t shown_count;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("POWER_TIMES");
    FILE *file = path ? fopen(path, "r") : NULL;
    struct shown one;
    while (file && fscanf(file, "%llu %lld %u %lld %u", &one.inode, &one.is_seconds, &one.is_nanos, &one.shown_seconds,
                          &one.shown_nanos) == 5) {
        shown = realloc(shown, (shown_count + 1) * sizeof *shown);
        shown[shown_count++] = one;
    }
    if (file) fclose(file);
}

int statx(int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict into) {
    int answer = NEXT(statx)(dir, path, flags, mask, into);
    for (size_t at = 0; answer == 0 && at < shown_count; at++) {
        struct shown *one = &shown[at];
        if (into->stx_ino == one->inode && into->stx_ctime.tv_sec == one->is_seconds &&
            into->stx_ctime.tv_nsec == one->is_nanos) {
            into->stx_ctime.tv_sec = one->shown_seconds;
            into->stx_ctime.tv_nsec = one->shown_nanos;
            break;
        }
    }
    return answer;
}
