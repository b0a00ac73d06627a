/* A worker for an empty root: binds $PORT, answers each connection with who it runs as, in HTTP. */
#include <arpa/inet.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 128)) {
    perror("worker: listen");
    return 1;
  }
  puts("listening");
  fflush(stdout);
  for (;;) {
    int client = accept(listener, NULL, NULL);
    if (client < 0) continue;
    gid_t groups[32];
    int count = getgroups(32, groups);
    char body[512], answer[700], request[2048];
    int length = sprintf(body, "uid %d gid %d groups", getuid(), getgid());
    for (int i = 0; i < count; i++) length += sprintf(body + length, " %d", groups[i]);
    (void)!read(client, request, sizeof request);
    int bytes = sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", length, body);
    (void)!write(client, answer, bytes);
    close(client);
  }
}
