/* The benchmark's floor: a client that only connects and sends, from C, with all prepared.
 *
 *     gcc -O2 -o floor floor.c -lssl -lcrypto -lpthread
 *     ./floor DUE CALLS PORT PATH [CA_FILE]
 *
 * CALLS requests for PATH go to 127.0.0.1:PORT at DUE, in whole seconds since the epoch, one
 * connection each, from one thread a processor; over TLS if CA_FILE is given. No scheduler
 * can be earlier on the same server, so what its requests' lateness shows is the cost of the
 * network, of the TLS handshakes, and of the server that notes them.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct timespec due;
static struct sockaddr_in server;
static char request[4096];
static SSL_CTX *tls; /* NULL over HTTP */

struct share {
    pthread_t thread;
    int calls;
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void *send_all(void *argument)
{
    struct share *share = argument;
    int *sockets = calloc(share->calls + 1, sizeof *sockets);
    SSL **sessions = calloc(share->calls + 1, sizeof *sessions);
    size_t length = strlen(request);
    char answer[4096];

    while (clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &due, NULL))
        ;
    for (int i = 0; i < share->calls; i++) {
        sockets[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (sockets[i] < 0 || connect(sockets[i], (struct sockaddr *)&server, sizeof server))
            fail("connect");
        if (!tls) {
            if (write(sockets[i], request, length) != (ssize_t)length)
                fail("write");
            continue;
        }
        sessions[i] = SSL_new(tls);
        SSL_set_fd(sessions[i], sockets[i]);
        if (SSL_connect(sessions[i]) != 1 || SSL_write(sessions[i], request, length) <= 0)
            fail("TLS");
    }
    for (int i = 0; i < share->calls; i++) { /* an answer is awaited, as every peer does */
        if (tls ? SSL_read(sessions[i], answer, sizeof answer) <= 0
                : read(sockets[i], answer, sizeof answer) <= 0)
            fail("read");
        close(sockets[i]);
    }
    return NULL;
}

int main(int count, char **arguments)
{
    if (count < 5) {
        fprintf(stderr, "usage: floor DUE CALLS PORT PATH [CA_FILE]\n");
        return 2;
    }
    due.tv_sec = atoll(arguments[1]);
    int calls = atoi(arguments[2]);
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(arguments[3]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", arguments[4]);
    if (count > 5) {
        tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
        if (!SSL_CTX_load_verify_locations(tls, arguments[5], NULL))
            fail(arguments[5]);
    }
    int threads = sysconf(_SC_NPROCESSORS_ONLN);
    struct share shares[threads];
    for (int i = 0; i < threads; i++) {
        shares[i].calls = calls / threads + (i < calls % threads);
        if (pthread_create(&shares[i].thread, NULL, send_all, &shares[i]))
            fail("pthread_create");
    }
    for (int i = 0; i < threads; i++)
        pthread_join(shares[i].thread, NULL);
    return 0;
}
