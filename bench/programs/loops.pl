# SPDX-License-Identifier: MIT
# Hashes, arrays, expressions over text: perl loops.pl TIMES
use strict;
use warnings;

my $sum = 0;
for my $i (1 .. $ARGV[0]) {
    my %count;
    my $text = join ' ', map { 'w' . ($_ * 7919 + $i) % 1013 } 1 .. 3000;
    $count{$1}++ while $text =~ /w(\d+)/g;
    my @top = sort { $count{$b} <=> $count{$a} || $a <=> $b } keys %count;
    $text =~ s/w(\d)(\d*)/$2$1/g;
    my ($x, $v) = (1.0, 0.0);
    for (1 .. 2000) { $v -= $x * 0.01; $x += $v * 0.01; }
    $sum = ($sum * 31 + $top[5] + length($text) + int($x * 1e9)) % 1000000007;
}
print "$sum\n";
