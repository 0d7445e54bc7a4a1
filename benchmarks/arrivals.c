/* The HTTP server of the benchmark: notes when each request arrives, and answers "ok".
 *
 *     gcc -O2 -o arrivals arrivals.c && ./arrivals > arrivals.txt
 *
 * It listens on a free port of 127.0.0.1 and writes that number to standard error. For each
 * request one line goes to standard output: when its first byte was read, by the wall clock,
 * and the request's path; "1792500000.000123456 /path". Lines are kept back while requests
 * come in and written when none has come for IDLE_MS. The program ends when its standard
 * input does, and so never outlives the benchmark.
 *
 * One thread and epoll, because noting a request takes a few microseconds: how many exactly
 * the benchmark shows with floor.c.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_CONNECTIONS 65536 /* descriptors; more than one run ever opens */
#define LONGEST_REQUEST 4096   /* bytes of a request's head */
#define BACKLOG 4096           /* connections that may wait to be accepted */
#define IDLE_MS 10

static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";

struct connection {
    struct timespec arrived; /* of the first byte of the request being read */
    size_t length;           /* bytes of it read so far */
    char request[LONGEST_REQUEST + 1];
};

static struct connection *connections[MOST_CONNECTIONS]; /* by descriptor */

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(int epoll, int descriptor)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event))
        fail("epoll_ctl");
}

static void accept_all(int epoll, int listener)
{
    int descriptor, on = 1;
    while ((descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (descriptor >= MOST_CONNECTIONS) {
            close(descriptor);
            continue;
        }
        if (!connections[descriptor])
            connections[descriptor] = malloc(sizeof(struct connection));
        if (!connections[descriptor])
            fail("malloc");
        connections[descriptor]->length = 0;
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(epoll, descriptor);
    }
}

/* Read what there is; once a request's head is whole, note and answer it. A request with a
 * body is not understood, and none of the peers sends one. */
static void serve(int descriptor)
{
    struct connection *connection = connections[descriptor];
    ssize_t got = read(descriptor, connection->request + connection->length,
                       LONGEST_REQUEST - connection->length);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            close(descriptor); /* which also ends its watch */
        return;
    }
    if (connection->length == 0)
        clock_gettime(CLOCK_REALTIME, &connection->arrived);
    connection->length += got;
    connection->request[connection->length] = 0;
    if (!strstr(connection->request, "\r\n\r\n")) {
        if (connection->length == LONGEST_REQUEST)
            close(descriptor);
        return;
    }
    char path[LONGEST_REQUEST];
    if (sscanf(connection->request, "%*s %4095s", path) == 1)
        printf("%lld.%09ld %s\n", (long long)connection->arrived.tv_sec,
               connection->arrived.tv_nsec, path);
    connection->length = 0;
    if (write(descriptor, ANSWER, sizeof ANSWER - 1) < 0)
        close(descriptor);
}

int main(void)
{
    static char buffer[1 << 20];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) ||
        listen(listener, BACKLOG) || getsockname(listener, (struct sockaddr *)&address, &size))
        fail("listen");
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("epoll_create1");
    watch(epoll, listener);
    watch(epoll, STDIN_FILENO);
    fprintf(stderr, "%d\n", ntohs(address.sin_port));

    struct epoll_event events[64];
    int unwritten = 0;
    for (;;) {
        int count = epoll_wait(epoll, events, 64, unwritten ? IDLE_MS : -1);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait");
        if (count == 0) {
            fflush(stdout);
            unwritten = 0;
        }
        for (int i = 0; i < count; i++) {
            int descriptor = events[i].data.fd;
            if (descriptor == STDIN_FILENO)
                return 0;
            if (descriptor == listener)
                accept_all(epoll, listener);
            else
                serve(descriptor);
            unwritten = 1;
        }
    }
}
