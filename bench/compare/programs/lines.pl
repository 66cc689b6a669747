# Answers a line with its pid, one connection after the other; SIGTERM ends it after the one in
# hand. The listener is that of Server::Starter, if it has been started by it.
use strict;
use warnings;
use IO::Socket::INET;

my $is_over = 0;
$SIG{TERM} = sub { $is_over = 1 };
my $listener;
if (my $given = $ENV{SERVER_STARTER_PORT}) {
    my ($fd) = $given =~ /=(\d+)/;
    $listener = IO::Socket::INET->new;
    $listener->fdopen($fd, 'r+') or die "fdopen: $!";
} else {
    $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 1024, ReuseAddr => 1)
        or die "listen: $@";
}
while (!$is_over) {
    my $connection = $listener->accept or next;
    my $said = <$connection>;
    print $connection "pid=$$\n" if defined $said;
    close $connection;
}
