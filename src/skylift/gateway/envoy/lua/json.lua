-- JSON, read and written in Lua: Envoy's has no codec. Objects keep their order, numbers their text.
local json = {}
do
  local MAX_DEPTH = 64
  local object, array = {}, {}
  json.null = setmetatable({}, { __tostring = function() return 'null' end })

  function json.object() return setmetatable({ names = {}, values = {} }, object) end
  function json.array() return setmetatable({}, array) end
  function json.is_object(v) return getmetatable(v) == object end
  function json.is_array(v) return getmetatable(v) == array end

  function json.set(o, name, v)
    if o.values[name] == nil then o.names[#o.names + 1] = name end
    o.values[name] = v
  end
  function json.get(o, name) return o.values[name] end
  function json.remove(o, name)
    if o.values[name] == nil then return end
    o.values[name] = nil
    for i, n in ipairs(o.names) do
      if n == name then table.remove(o.names, i) return end
    end
  end
  function json.number(text) return { number = text } end

  function json.utf8(c)
    local floor = math.floor
    if c < 0x80 then return string.char(c) end
    if c < 0x800 then return string.char(0xC0 + floor(c / 64), 0x80 + c % 64) end
    if c < 0x10000 then
      return string.char(0xE0 + floor(c / 4096), 0x80 + floor(c / 64) % 64, 0x80 + c % 64)
    end
    return string.char(0xF0 + floor(c / 262144), 0x80 + floor(c / 4096) % 64, 0x80 + floor(c / 64) % 64,
      0x80 + c % 64)
  end

  local escapes = { ['"'] = '"', ['\\'] = '\\', ['/'] = '/', b = '\b', f = '\f', n = '\n', r = '\r', t = '\t' }
  local value

  local function skip(s, i) return s:find('[^ \t\r\n]', i) or #s + 1 end

  local function hex(s, i)
    local digits = s:match('^%x%x%x%x', i) or error('a \\u without four hex digits', 0)
    return tonumber(digits, 16)
  end

  local function text(s, i)
    local parts = {}
    i = i + 1
    while true do
      local stop = s:find('["\\%c]', i) or error('a text without an end', 0)
      parts[#parts + 1] = s:sub(i, stop - 1)
      local c = s:sub(stop, stop)
      if c == '"' then return table.concat(parts), stop + 1 end
      if c ~= '\\' then error('a control character in a text', 0) end
      local e = s:sub(stop + 1, stop + 1)
      i = stop + 2
      if e == 'u' then
        local code = hex(s, i)
        i = i + 4
        if code >= 0xD800 and code < 0xDC00 and s:sub(i, i + 1) == '\\u' then
          local low = hex(s, i + 2)
          if low >= 0xDC00 and low < 0xE000 then
            code = 0x10000 + (code - 0xD800) * 1024 + (low - 0xDC00)
            i = i + 6
          end
        end
        parts[#parts + 1] = json.utf8(code)
      else
        parts[#parts + 1] = escapes[e] or error('an unknown escape', 0)
      end
    end
  end

  local function members(s, i, depth)
    local o = json.object()
    i = skip(s, i + 1)
    if s:sub(i, i) == '}' then return o, i + 1 end
    while true do
      if s:sub(i, i) ~= '"' then error('a name was expected', 0) end
      local name, v
      name, i = text(s, i)
      i = skip(s, i)
      if s:sub(i, i) ~= ':' then error('a colon was expected', 0) end
      v, i = value(s, i + 1, depth + 1)
      json.set(o, name, v)
      i = skip(s, i)
      local c = s:sub(i, i)
      i = skip(s, i + 1)
      if c == '}' then return o, i end
      if c ~= ',' then error('a comma was expected', 0) end
    end
  end

  local function elements(s, i, depth)
    local a = json.array()
    i = skip(s, i + 1)
    if s:sub(i, i) == ']' then return a, i + 1 end
    while true do
      a[#a + 1], i = value(s, i, depth + 1)
      i = skip(s, i)
      local c = s:sub(i, i)
      i = i + 1
      if c == ']' then return a, i end
      if c ~= ',' then error('a comma was expected', 0) end
    end
  end

  local words = { { 'true', true }, { 'false', false }, { 'null', json.null } }

  function value(s, i, depth)
    if depth > MAX_DEPTH then error('deeper than ' .. MAX_DEPTH, 0) end
    i = skip(s, i)
    local c = s:sub(i, i)
    if c == '{' then return members(s, i, depth) end
    if c == '[' then return elements(s, i, depth) end
    if c == '"' then return text(s, i) end
    for _, w in ipairs(words) do
      if s:sub(i, i + #w[1] - 1) == w[1] then return w[2], i + #w[1] end
    end
    local number = s:match('^%-?%d+%.?%d*[eE]?[+-]?%d*', i)
    if not number or not tonumber(number) then error('a value was expected', 0) end
    return json.number(number), i + #number
  end

  -- The value of a text. Raises a sentence.
  function json.decode(s)
    local v, i = value(s, 1, 0)
    if skip(s, i) <= #s then error('something behind the value', 0) end
    return v
  end

  local quoted = { ['"'] = '\\"', ['\\'] = '\\\\', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t' }
  local function quote(s)
    return '"' .. s:gsub('[%z\1-\31"\\]', function(c)
      return quoted[c] or string.format('\\u%04x', c:byte())
    end) .. '"'
  end

  function json.encode(v)
    if v == nil or v == json.null then return 'null' end
    if type(v) == 'string' then return quote(v) end
    if type(v) ~= 'table' then return tostring(v) end
    if v.number then return v.number end
    local parts = {}
    if json.is_array(v) then
      for i = 1, #v do parts[i] = json.encode(v[i]) end
      return '[' .. table.concat(parts, ',') .. ']'
    end
    for i, name in ipairs(v.names) do parts[i] = quote(name) .. ':' .. json.encode(v.values[name]) end
    return '{' .. table.concat(parts, ',') .. '}'
  end
end
