/* Takes the power of a mounted file system away: what was not written to its device is lost. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define FS_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define NO_LOG_FLUSH 2

int main(int count, char **words) {
    uint32_t how = NO_LOG_FLUSH;
    int fd = count == 2 ? open(words[1], O_RDONLY) : -1;
    if (fd < 0 || ioctl(fd, FS_IOC_SHUTDOWN, &how)) {
        perror("FS_IOC_SHUTDOWN");
        return 1;
    }
    return 0;
}
