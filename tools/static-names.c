/* Linked into the static binary alone, by tools/release.sh.
 *
 * glibc looks names up as /etc/nsswitch.conf says, and loads a module for each source but files and dns. A static
 * binary carries its own glibc; a module of a machine with another one brings that with it, and the process dies of
 * SIGFPE in the first lookup that reaches it (seen: glibc 2.36 inside, 2.41 outside, `hosts: files myhostname dns`).
 * So before main() the sources are set to those that are linked in. docs/static-binary.md tells users.
 */
#include <stdlib.h>

extern int __nss_configure_lookup(const char *database, const char *sources);

__attribute__((constructor)) static void only_what_is_linked_in(void)
{
    if (__nss_configure_lookup("hosts", "files dns") || __nss_configure_lookup("passwd", "files")
        || __nss_configure_lookup("group", "files"))
        abort(); /* the names above are wrong: no build of this passes tools/static-check.sh */
}
