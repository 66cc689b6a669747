// A library in which there is nothing: what it costs a program to have any preloaded.
typedef int nothing;  // C wants something in a file
