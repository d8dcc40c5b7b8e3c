-- Find the commands that the connection's user may not run.
-- args: commands (each with its arguments behind spaces)
-- Returns {commands…}, or {'unknown'} on a server too old to tell.
if not redis.acl_check_cmd then
  return { 'unknown' }
end
local denied = {}
for _, command in ipairs(args.commands) do
  local words = {}
  for word in string.gmatch(command, '%S+') do
    words[#words + 1] = word
  end
  if not redis.acl_check_cmd(unpack(words)) then
    denied[#denied + 1] = words[1]
  end
end
return denied
