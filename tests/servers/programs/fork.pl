# Answers each line with the same line, in a process of its own for each connection.
use strict;
use warnings;
use IO::Socket::INET;

$SIG{CHLD} = 'IGNORE';
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 64, ReuseAddr => 1)
    or die "listen: $@";
while (1) {
    my $connection = $listener->accept or next;
    if (!fork) {
        close $listener;
        $connection->autoflush(1);
        print $connection $_ while <$connection>;
        exit;
    }
    close $connection;
}
