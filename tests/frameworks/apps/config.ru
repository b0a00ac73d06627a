# A Rack app, which answers with its pid.
run ->(_env) { [200, { 'content-type' => 'text/plain' }, ["pid=#{Process.pid}"]] }
