<?php
// Answers at once; /wait?NAME says that it has begun in NAME.begun and answers when NAME exists.
$url = parse_url($_SERVER['REQUEST_URI']);
if ($url['path'] !== '/wait') {
    exit("hello\n");
}
$name = getcwd() . '/' . $url['query'];
touch($name . '.begun');
while (!file_exists($name)) {
    usleep(5000);
    clearstatcache();
}
echo "waited\n";
