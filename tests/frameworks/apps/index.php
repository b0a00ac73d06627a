<?php
$body = 'pid=' . getmypid();
header('Content-Length: ' . strlen($body));
echo $body;
