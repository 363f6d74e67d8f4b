/* Kills a process before the N-th change of the files in a folder, for the tests of an interrupted creation.
 *
 * The test preloads this library. KILL_FOLDER is the folder, KILL_AT is N, and KILL_LOSS says what happens to data
 * that was not synced: 0 it stays, as after the death of a process; 1 files have the content of their last sync, and
 * removed files are there again, as after the death of a machine; 2 the same, but files have their last length, with
 * zeros. KILL_SYNCED is a folder for copies.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int changes;

/* The files with data that was not synced, or that were removed without a sync of the folder. */
static struct { char name[256]; int is_removed; } lost[16];
static int losses;

static const char *folder(void) { return getenv("KILL_FOLDER"); }

/* The name of a file in the folder, or NULL. "" is the folder. */
static const char *name_in_folder(const char *path) {
    size_t length = folder() ? strlen(folder()) : 0;
    if (!length || strncmp(path, folder(), length)) return NULL;
    if (!path[length]) return "";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static const char *name_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return name_in_folder(path);
}

static void copy(const char *from, const char *to, off_t zeros) {
    char buffer[65536];
    ssize_t length;
    int in = REAL(open)(from, O_RDONLY), out = REAL(open)(to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    while (in >= 0 && (length = read(in, buffer, sizeof buffer)) > 0) REAL(write)(out, buffer, length);
    if (zeros) REAL(ftruncate)(out, zeros);
    close(in);
    close(out);
}

static void path_in(char *path, const char *variable, const char *name) {
    snprintf(path, PATH_MAX, "%s/%s", getenv(variable), name);
}

static int index_of(const char *name) {
    for (int i = 0; i < losses; i++) if (!strcmp(lost[i].name, name)) return i;
    return -1;
}

static void forget(int i) { lost[i] = lost[--losses]; }

static void remember(const char *name, int is_removed) {
    char from[PATH_MAX], to[PATH_MAX];
    int i = index_of(name);
    if (i < 0) {
        i = losses++;
        snprintf(lost[i].name, sizeof lost[i].name, "%s", name);
        path_in(from, "KILL_FOLDER", name);
        path_in(to, "KILL_SYNCED", name);
        copy(from, to, 0);
    }
    lost[i].is_removed = is_removed;
}

static void lose(int keeps_length) {
    for (int i = 0; i < losses; i++) {
        char from[PATH_MAX], to[PATH_MAX];
        struct stat stat_of_file = {0};
        path_in(from, "KILL_SYNCED", lost[i].name);
        path_in(to, "KILL_FOLDER", lost[i].name);
        if (keeps_length && !lost[i].is_removed) stat(to, &stat_of_file);
        copy(from, to, stat_of_file.st_size);
    }
}

/* Counts a change, and is the end of the process at the N-th. */
static void change(void) {
    if (++changes != atoi(getenv("KILL_AT"))) return;
    int loss = atoi(getenv("KILL_LOSS"));
    if (loss) lose(loss == 2);
    raise(SIGKILL);
}

static void before_write(int fd) {
    char path[PATH_MAX];
    const char *name = name_of(fd, path);
    if (!name || strstr(name, "-shm")) return;
    pthread_mutex_lock(&lock);
    change();
    remember(name, 0);
    pthread_mutex_unlock(&lock);
}

static void before_sync(int fd) {
    char path[PATH_MAX];
    const char *name = name_of(fd, path);
    if (!name) return;
    pthread_mutex_lock(&lock);
    change();
    for (int i = losses - 1; i >= 0; i--)
        if (*name ? !lost[i].is_removed && !strcmp(lost[i].name, name) : lost[i].is_removed) forget(i);
    pthread_mutex_unlock(&lock);
}

#define WRITES(result, name, arguments, ...)                                                                          \
    result name arguments {                                                                                           \
        before_write(fd);                                                                                             \
        return REAL(name)(__VA_ARGS__);                                                                               \
    }
#define SYNCS(name)                                                                                                   \
    int name(int fd) {                                                                                                \
        before_sync(fd);                                                                                              \
        return REAL(name)(fd);                                                                                        \
    }

WRITES(ssize_t, write, (int fd, const void *data, size_t length), fd, data, length)
WRITES(ssize_t, pwrite, (int fd, const void *data, size_t length, off_t at), fd, data, length, at)
WRITES(ssize_t, pwrite64, (int fd, const void *data, size_t length, off64_t at), fd, data, length, at)
WRITES(int, ftruncate, (int fd, off_t length), fd, length)
WRITES(int, ftruncate64, (int fd, off64_t length), fd, length)
SYNCS(fsync)
SYNCS(fdatasync)

int unlink(const char *path) {
    const char *name = name_in_folder(path);
    if (name) {
        pthread_mutex_lock(&lock);
        change();
        if (!strstr(name, "-shm")) remember(name, 1);
        pthread_mutex_unlock(&lock);
    }
    return REAL(unlink)(path);
}

#define OPENS(name)                                                                                                   \
    int name(const char *path, int flags, ...) {                                                                      \
        va_list arguments;                                                                                            \
        va_start(arguments, flags);                                                                                   \
        mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;                                                \
        va_end(arguments);                                                                                            \
        if (flags & O_CREAT && name_in_folder(path)) {                                                                \
            pthread_mutex_lock(&lock);                                                                                \
            change();                                                                                                 \
            pthread_mutex_unlock(&lock);                                                                              \
        }                                                                                                             \
        return REAL(name)(path, flags, mode);                                                                         \
    }

OPENS(open)
OPENS(open64)
